"""The bundled student's own exam: conversations it was not trained on, and problems with one right answer.

They come from the recipe that trained it, which lies beside it in the assets as scripts that import each other by bare name.
"""

from __future__ import annotations

import random
from itertools import cycle, islice
from pathlib import Path
from types import ModuleType
from typing import Any

from backends.base import Backend, Sampling
from backends.compare import Progress
from localr1 import paths
from localr1.models import BUNDLED
from localr1.scripts import load
from quantize.evaluate import MOST_WINDOWS, WINDOW_TOKENS, Material

PROBLEMS = 20  # of each family


def is_student(source: Path) -> bool:
    """Whether a checkpoint folder is the bundled one."""
    bundled = paths.assets() / BUNDLED
    return source.is_dir() and bundled.is_dir() and source.samefile(bundled)


def exam() -> Material:
    """The same each time."""
    data, evaluate = recipe("data", "evaluate")

    def tasks(backend: Backend, on_progress: Progress) -> dict[str, float]:
        found: dict[str, float] = {}
        for done, family in enumerate(data.FAMILIES):
            on_progress(done, len(data.FAMILIES))
            found[family] = _share_right(data, evaluate, backend, family)
        return found

    return Material(f"conversations that {BUNDLED} was not trained on", _windows(data), tasks)


def recipe(*names: str) -> list[ModuleType]:
    """Modules of the recipe."""
    return load(paths.assets() / "recipe", *names)


def _share_right(data: Any, evaluate: Any, backend: Backend, family: str) -> float:
    asked = islice(data.evaluation(0, family), PROBLEMS)
    right = [evaluate.right(p, evaluate.reply(backend, Sampling(temperature=0), p.question).message.content) for p in asked]
    return right.count(True) / PROBLEMS


def _windows(data: Any) -> list[list[int]]:
    """One held-out problem after another, family by family, as the chat would have it: question, thought, answer."""
    rng, ids = random.Random("held-out conversations"), []
    for family in cycle(data.FAMILIES):
        problem = data.draw(rng, family, held_out=True)
        ids += data.written([], problem)[0]
        if len(ids) >= MOST_WINDOWS["gguf"] * WINDOW_TOKENS:
            return [ids[i : i + WINDOW_TOKENS] for i in range(0, MOST_WINDOWS["gguf"] * WINDOW_TOKENS, WINDOW_TOKENS)]
    raise AssertionError("families never end")
