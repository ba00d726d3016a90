"""The bundled model on one backend, greedily, in a process of its own: an engine that was built for another processor ends its process.

`python -m localr1.self_test BACKEND` prints one line of JSON: what `SelfTest` holds.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backends.base import Backend

QUESTION = "How many r's are in strawberry?"
TOKENS = 24
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a backend continued the question with; `error` is "" where it could."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    load_s: float = 0.0
    tokens_per_s: float = 0.0
    error: str = ""


def self_test(backend: str, timeout_s: float = TIMEOUT_S) -> SelfTest:
    """Never raises: what goes wrong is in `error`."""
    command = [sys.executable, "-P", "-m", "localr1.self_test", backend]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
        found = json.loads(done.stdout.splitlines()[-1])
        return SelfTest(**found | {"tokens": tuple(found["tokens"])})
    except subprocess.TimeoutExpired:
        return SelfTest(error=f"no answer within {timeout_s:g} seconds")
    except OSError as error:
        return SelfTest(error=f"its process cannot be started ({error.strerror})")
    except (ValueError, TypeError, KeyError, IndexError):
        if done.returncode < 0:
            return SelfTest(error=f"its process was ended by {_signal(-done.returncode)}")
        said = done.stderr.strip().splitlines()
        return SelfTest(error=said[-1][:200] if said else f"its process ended with code {done.returncode}")


def run(backend: str) -> SelfTest:
    """In this process. Raises whatever the backend does."""
    from backends.base import Cancel, Sampling, Token
    from localr1.prompt import Message, render

    begun = perf_counter()
    with tempfile.TemporaryDirectory(prefix="localr1-") as folder, _open(backend, Path(folder)) as opened:
        loaded = perf_counter()
        prompt = render([Message("user", QUESTION)], opened.chat_format)
        sampling = Sampling(temperature=0, max_tokens=TOKENS)
        made = [t for t in opened.stream(opened.encode(prompt.segments), sampling, Cancel()) if isinstance(t, Token)]
        taken = perf_counter() - loaded
    return SelfTest(tuple(t.id for t in made), "".join(t.text for t in made), round(loaded - begun, 3), round(len(made) / taken, 1))


def _open(backend: str, folder: Path) -> Backend:
    from localr1 import paths
    from localr1.models import BUNDLED

    source = paths.assets() / BUNDLED
    if backend == "mlx":
        from backends.mlx import MlxBackend

        return MlxBackend(source, None, float32=True)
    if backend == "reference":
        from backends.reference.backend import ReferenceBackend

        return ReferenceBackend(source)
    from backends.llamacpp import LlamaCppBackend
    from quantize.convert import convert

    convert(source, folder / "self-test.gguf", "F32")  # nothing lost: the others read the same weights
    return LlamaCppBackend(folder / "self-test.gguf")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main() -> int:
    try:
        found = run(sys.argv[1])
    except Exception as error:  # an engine can fail in any way; the doctor tells which
        found = SelfTest(error=" ".join(f"{error or type(error).__name__}".split()))
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
