"""What the whole chat costs: `python tests/bench_chat.py [--terminal [--times 5]] [--tokens 32000] [--trace] [--history] [--json]`.

--terminal: the real program on the bundled model, in a pseudo-terminal; medians. `localr1 --version`; from the start of the process to the
first paint; from a key to its character on the screen, at rest and while the engine computes on all cores; memory of the whole screen
without a model. Else while a thought streams: headless, 120x40. A scripted backend writes a thought at full speed on the engine's thread. Figures: CPU seconds of the event loop's
thread; how late a timer of the event loop came meanwhile (median, p99, longest). --trace: with the trace open; --history: kept as it
streams, and how large that is beside its text.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter, sleep, thread_time

from bench_trace import lateness, written
from pseudo_terminal import LOCALR1, Terminal

from backends.base import Cancel, End, Sampling, Token
from localr1.tui.app import ChatApp
from localr1.turn import Written
from scripted import ScriptedBackend


class Fast(ScriptedBackend):
    """Streams tokens as they are given, with their probabilities and alternatives."""

    def __init__(self, tokens: Sequence[Written]) -> None:
        super().__init__(context=10**6)
        self.tokens = tokens

    def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
        for each in self.tokens:
            if cancel.is_set():
                break
            yield each.token
        for text in ("</think>", "\n\n", "600"):
            yield Token(self.id_of(text), text, -0.1)
        yield End("stop", len(ids), 0, len(self.tokens), 0.01, 1.0)


async def measure(tokens: int, trace: bool, history: Path | None) -> dict[str, float]:
    backend = Fast(written(tokens))
    app, late = ChatApp(lambda say: backend, history=history), list[float]()
    gc.collect()
    gc.freeze()
    async with app.run_test(size=(120, 40)) as pilot:
        while app.engine.session is None:
            await asyncio.sleep(0.01)
        if trace:
            await pilot.press("ctrl+t")
        watch = asyncio.create_task(lateness(late))
        app.input.insert("How many tiles?")
        began, cpu = perf_counter(), thread_time()
        await pilot.press("enter")
        while app.last is None or not app.last.over:
            await asyncio.sleep(0.005)
        await pilot.pause()
        cpu, wall = thread_time() - cpu, perf_counter() - began
        watch.cancel()
    found = {
        "tokens": tokens, "ui_cpu_s": cpu, "wall_s": wall, "late_median_ms": 1e3 * statistics.median(late),
        "late_p99_ms": 1e3 * sorted(late)[math.ceil(0.99 * len(late)) - 1], "late_longest_ms": 1e3 * max(late),
    }  # fmt: skip
    if history is not None:
        text = sum(len(w.thought.encode()) for w in backend.tokens)
        found |= {"text_bytes": text, "history_bytes": history.stat().st_size, "history_ratio": history.stat().st_size / text}
    return found


def in_terminal(times: int) -> dict[str, float]:
    version, paint, at_rest, busy = list[float](), list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        here = {f"XDG_{name}_HOME": folder for name in ("DATA", "CONFIG")}
        for _ in range(times):
            began = perf_counter()
            subprocess.run([*LOCALR1, "--version"], stdout=subprocess.DEVNULL, check=True)
            version.append(perf_counter() - began)
            began = perf_counter()
            with Terminal("chat", "--no-history", **here) as terminal:
                terminal.until("Ask something")
                paint.append(perf_counter() - began)
                terminal.until("4,096")
                at_rest += typed(terminal)
                terminal.type(f"\x03How many r's are in {'strawberry' * 30}?\r")  # 300 tokens of a reply
                terminal.until("Thinking")
                busy += typed(terminal)
        memory = float(
            subprocess.run(
                [sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": "."}
            ).stdout
        )
    return {
        "version_s": statistics.median(version), "first_paint_s": statistics.median(paint), "key_at_rest_ms": 1e3 * statistics.median(at_rest),
        "key_while_computing_ms": 1e3 * statistics.median(busy), "key_while_computing_p95_ms": 1e3 * statistics.quantiles(busy, n=20)[-1],
        "memory_mb": memory, "load_average": os.getloadavg()[0],
    }  # fmt: skip


def typed(terminal: Terminal) -> list[float]:
    """Seconds from a key to its character on the screen; the keys are those that no other text has."""
    found = []
    for key in "ΔЖΩЯΣЮΨЩΞЭ":
        sleep(0.03)
        began = perf_counter()
        terminal.type(key)
        terminal.until(key)
        found.append(perf_counter() - began)
    return found


_MEMORY = """
import asyncio, resource
from localr1.tui.app import ChatApp

async def run():
    app = ChatApp(lambda say: 1 / 0)
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.press("ctrl+t", "f1", "escape", "ctrl+p", "escape")

asyncio.run(run())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32_000)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--history", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--terminal", action="store_true")
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    if args.terminal:
        tell(in_terminal(args.times), args.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(args.tokens, args.trace, Path(folder) / "h.db" if args.history else None))
    tell(found, args.json)


def tell(found: dict[str, float], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:>{width}}  {value:,.2f}" if isinstance(value, float) else f"{name:>{width}}  {value:,}")


if __name__ == "__main__":
    main()
