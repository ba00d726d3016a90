"""A model as a chat opens it, and opens it again with a larger context where memory allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backends.base import Backend
    from backends.hardware import Machine
    from backends.memory import CacheType
    from backends.model_file import ModelFile
    from localr1.models import ModelSpec, Wanted
    from localr1.settings import Settings
    from localr1.settings_layers import Layers

_STEPS = (2.0, 1.5, 1.25)  # times the context there is; with less, the next turn would be at its end again


@dataclass(frozen=True, slots=True)
class Opener:
    """`chosen`: by a person, so that it is the default from now on."""

    spec: ModelSpec
    wanted: Wanted
    chosen: bool = False

    def __call__(self, say: Callable[[str], None]) -> Backend:
        from localr1.models import open_model

        return open_model(self.spec, self.wanted, say, say)

    def remember(self) -> None:
        """It is open now: the default from now on, where a person has chosen it."""
        if self.chosen:
            from localr1.library import used

            used(self.spec.path)

    def larger(self, context_tokens: int) -> Opener | None:
        """With more context than these tokens, which it has now; None: it was not trained for more, or memory has no room."""
        from backends.hardware import look
        from backends.model_file import describe
        from localr1 import paths

        tokens = larger_context(look(paths.cache()), describe(self.spec.path), self.wanted.kv, context_tokens)
        return replace(self, wanted=replace(self.wanted, context=tokens)) if tokens else None


def wanted(settings: Settings, force: bool = False) -> Wanted:
    """As the settings say."""
    from localr1.models import Wanted

    return Wanted(settings.model.backend, settings.model.context, settings.model.kv, force)


def go_back(layers: Layers, opener: Opener) -> None:
    """Have the settings be those of what is open: what was asked for instead could not be opened."""
    layers.open(opener.spec.name, opener.spec.path)
    for key, value in (("model.backend", opener.wanted.backend), ("model.context", opener.wanted.context), ("model.kv", opener.wanted.kv)):
        if layers.settings[key] != value:
            layers.set(key, value)


def larger_context(machine: Machine, model: ModelFile, kv: CacheType, context_tokens: int) -> int:
    """Of a model that is open with so many tokens: as many as it was trained for and memory has room for, twice as many at most; else 0."""
    from backends.memory import CONTEXT_STEP, cache_bytes, compute_bytes, free_bytes

    shape = model.shape
    if shape is None:
        return 0

    def taken(tokens: int) -> int:
        return cache_bytes(shape, tokens, kv) + compute_bytes(shape, tokens, kv)

    room = free_bytes(machine) + taken(context_tokens)  # the one that is open is closed first
    for step in _STEPS:
        tokens = min(shape.context, int(step * context_tokens) // CONTEXT_STEP * CONTEXT_STEP)
        if tokens > context_tokens and taken(tokens) <= room:
            return tokens
    return 0
