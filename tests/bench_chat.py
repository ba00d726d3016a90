"""What the whole chat costs while a thought streams: `python tests/bench_chat.py [--tokens 32000] [--trace] [--history] [--json]`.

Headless, 120x40. A scripted backend writes a thought at full speed on the engine's thread. Figures: CPU seconds of the event loop's
thread; how late a timer of the event loop came meanwhile (median, p99, longest). --trace: with the trace open; --history: kept as it
streams, and how large that is beside its text.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter, thread_time

from bench_trace import lateness, written

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32_000)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--history", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(args.tokens, args.trace, Path(folder) / "h.db" if args.history else None))
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>16}  {value:,.2f}" if isinstance(value, float) else f"{name:>16}  {value:,}")


if __name__ == "__main__":
    main()
