"""A checkpoint folder that is verified: its model, what it reads, and how much of that the machine can bear."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from localr1.prompt import Message, render
from localr1.student import exam, is_student
from localr1.verifying.lines import Skipped

if TYPE_CHECKING:
    import numpy as np

    from backends.base import Backend
    from backends.compare import Baseline, Windows
    from backends.reference.backend import ReferenceBackend

QUESTIONS = ("How many r's are in strawberry?", "What is 907 + 195?", "Which is larger, 9.11 or 9.9?", "What is 12 x 34?")
WINDOW_TOKENS, WINDOWS = 256, 4
LEAST_TOKENS, LEAST_STEPS = 12, 2
# Multiplications of one pass over the tokens: a second in numpy on two cores, a quarter of a minute in MLX on them. Models of up to 78M active
# parameters read everything; from 1.7B on, the least.
WORK = 2 * 10**10
LARGE = 10**9  # parameters: from here on an exact GGUF file is F16, not F32


@dataclass
class Subject:
    """`label`: what its lines begin with; `scratch`: a folder for temporary files, which is removed by who made it."""

    label: str
    folder: Path
    scratch: Path

    @cached_property
    def reference(self) -> ReferenceBackend:
        from backends.reference.backend import ReferenceBackend

        return ReferenceBackend(self.folder)

    @cached_property
    def parameters(self) -> tuple[int, int]:
        """All, and those that one token multiplies; of the main model."""
        from backends.checkpoint import Checkpoint
        from backends.reference.config import parse_config
        from backends.reference.inspect import parts

        with Checkpoint.open(self.folder) as checkpoint:
            main = [part for part in parts(checkpoint, parse_config(checkpoint.config)) if not part.kind.startswith("mtp")]
        return sum(part.parameters for part in main), sum(part.active for part in main)

    @property
    def tokens(self) -> int:
        """How many tokens one pass may have."""
        trained = self.reference.model.config.max_position_embeddings
        return min(WINDOW_TOKENS, trained, max(LEAST_TOKENS, WORK // max(1, self.parameters[1])))

    @property
    def steps(self) -> int:
        """How many tokens are computed one by one: each reads all the weights."""
        return max(LEAST_STEPS, self.tokens // 8)

    @cached_property
    def windows(self) -> Windows:
        """What every engine reads: the bundled models' own kind of text; for others, prose."""
        from backends.base import Text
        from quantize.calibrate import cut, heldout

        if self.speaks_tiny:
            found = [window[: self.tokens] for window in exam().windows]
        else:
            found = cut(self.reference.encode([Text(heldout())]), None, self.tokens)
        return found[: WINDOWS if self.tokens == WINDOW_TOKENS else max(1, WINDOWS * self.tokens // WINDOW_TOKENS)]

    @cached_property
    def speaks_tiny(self) -> bool:
        """Whether its tokens are those of the bundled models."""
        from localr1 import paths
        from localr1.models import BUNDLED

        own, bundled = (folder / "tokenizer.json" for folder in (self.folder, paths.assets() / BUNDLED))
        return is_student(self.folder) or (own.is_file() and bundled.is_file() and own.read_bytes() == bundled.read_bytes())

    @cached_property
    def leads(self) -> np.ndarray:
        """Of each token of the first window, the least lead of its experts (Routing); infinite without a mixture."""
        import numpy as np

        from backends.reference.model import Record

        model, record, ids = self.reference.model, Record(), list(self.windows[0])
        model.forward(ids, model.new_cache(), record)
        leads: np.ndarray = np.min([np.full(len(ids), np.inf), *(routing.leads for routing in record.routing.values())], axis=0)
        return leads

    @cached_property
    def baseline(self) -> Baseline:
        """What the reference predicts in the windows."""
        from backends import compare

        return compare.read(self.reference, self.windows)

    def titled(self, what: str) -> str:
        return f"{self.label}: {what}" if self.label else what

    def prompt(self, question: str) -> list[int]:
        return question_ids(self.reference, question)

    def gguf(self, form: str = "") -> Path:
        """Converted, once; by default to the form that loses nothing, F32, or of a large model next to nothing."""
        from quantize.convert import convert

        form = form or self.exact
        path = self.scratch / f"{self.folder.resolve().name}-{form}.gguf"
        if not path.exists():
            self._check_fits(form)
            convert(self.folder, path, form)
        return path

    @property
    def exact(self) -> str:
        return "F32" if self.parameters[0] < LARGE else "F16"

    def _check_fits(self, form: str) -> None:
        from backends.hardware import disk_free, look
        from backends.memory import free_bytes

        needed = self.parameters[0] * (4 if form == "F32" else 2)
        for place, free in (("memory", free_bytes(look())), ("temporary folder", disk_free(self.scratch))):
            if needed > free:
                raise Skipped(f"as {form} it takes {needed / 1e9:,.1f} GB, and the {place} has {free / 1e9:,.1f} GB free")


def question_ids(backend: Backend, question: str) -> list[int]:
    """By the model's chat template; of a base model without one, the question alone, which it writes on."""
    from backends.base import Text

    if not backend.chat_format.template:
        return backend.encode([Text(question)])
    return backend.encode(render([Message("user", question)], backend.chat_format).segments)
