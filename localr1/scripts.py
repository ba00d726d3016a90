"""Scripts that lie in the assets: the recipe that trained the bundled models, the goldens' tiny checkpoints."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


def load(folder: Path, *names: str) -> list[ModuleType]:
    """Modules of `folder`, which import each other by bare name. They are forgotten by the interpreter at once: such names are other
    people's too."""
    place, before = str(folder), set(sys.modules)
    sys.path.insert(0, place)
    try:
        return [import_module(name) for name in names]
    finally:
        sys.path.remove(place)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(place):
                del sys.modules[name]
