"""The bundled student as a GGUF file, converted once a session, and folders that are not the person's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.llamacpp import LlamaCppBackend
from localr1 import paths


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cache, configuration and data folders of this run alone, for the program's own processes too."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "CONFIG", "DATA", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(root / name.lower()))
        patch.setenv("HOME", str(root))
        yield root


@pytest.fixture(autouse=True)
def nothing_used_before(own_folders: Path) -> None:
    """The default model is the bundled one, whatever another test has opened."""
    (paths.data() / "models.json").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def student_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quantize.convert import convert

    target = tmp_path_factory.mktemp("student") / "r1-tiny-Q8_0.gguf"
    convert(paths.assets() / "r1-tiny", target, "Q8_0")
    return target


@pytest.fixture
def student(student_gguf: Path) -> Iterator[LlamaCppBackend]:
    with LlamaCppBackend(student_gguf) as backend:
        yield backend
