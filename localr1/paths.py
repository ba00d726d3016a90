"""Where things are: the bundled assets, and the person's cache and data folders."""

from __future__ import annotations

from pathlib import Path


def assets() -> Path:
    """The bundled assets: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "assets"
    return installed if installed.is_dir() else package.parent / "assets"


def cache() -> Path:
    """Folder for files that can be made again (XDG_CACHE_HOME on Linux, Library/Caches on macOS)."""
    from platformdirs import user_cache_path

    return user_cache_path("localr1", appauthor=False)


def data() -> Path:
    """Folder for what a person would miss: the history (XDG_DATA_HOME on Linux, Library/Application Support on macOS)."""
    from platformdirs import user_data_path

    return user_data_path("localr1", appauthor=False)


def config() -> Path:
    """Folder for what a person has set (XDG_CONFIG_HOME on Linux, Library/Application Support on macOS)."""
    from platformdirs import user_config_path

    return user_config_path("localr1", appauthor=False)
