"""What the view of a trace costs: `python tests/bench_trace.py [--tokens 32000] [--batch 100] [--size 120x40] [--json]`.

Headless. Streams a written thought into a TraceView at full speed, batch by batch, and opens the same as a saved trace. Figures: CPU
seconds of the process from the first batch to the last paint; CPU of the longest feed and of `finish`; how late a timer of the event loop came meanwhile
(median, p99, longest); seconds from `show` to the end of the first paint, its steps not cut before.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import re
import statistics
from itertools import cycle, islice
from time import perf_counter, process_time, thread_time

from textual.app import App, ComposeResult

from backends.base import Token
from localr1.trace.record import Ended, Made, Trace
from localr1.tui.trace_view import TraceView
from localr1.turn import ThoughtDelta, Written

THOUGHT = """Okay, so I need to find how many square tiles of side 15 cm cover a floor that is 3 m by 4.5 m.

First, I should get everything into the same unit. Then I can count how many tiles go along each side and multiply.

3 m is 300 cm, and 300 divided by 15 is 20. 4.5 m is 450 cm, which gives 30 tiles along the long side. Wait, does that leave a gap?

Let me check: 30 times 15 is 450, so it doesn't. Hmm, what about the border, it isn't mentioned anywhere.

So the answer is 20 times 30, which is 600 tiles.

"""
TICK_S = 0.005


class Host(App[None]):
    def __init__(self) -> None:
        super().__init__(ansi_color=True)
        self.view = TraceView()

    def compose(self) -> ComposeResult:
        yield self.view


def written(tokens: int) -> list[Written]:
    pieces = islice(cycle(re.findall(r" ?\w+|\n\n|\S", THOUGHT)), tokens)
    others = ((1, " the", -2.0), (2, " a", -3.0))
    logprobs = cycle([-0.001, -0.01, -0.001, -0.6, -0.02, -1.9, -0.001])
    return [
        Written(Token(i % 9_000, text, p, others if p < -0.1 else ()), "thought", text, "", False, i / 40)
        for i, (text, p) in enumerate(zip(pieces, logprobs, strict=False))
    ]


async def lateness(into: list[float]) -> None:
    """How much later than asked for a sleeper wakes up, in seconds, again and again."""
    while True:
        due = perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        into.append(perf_counter() - due)


async def measure(tokens: int, batch: int, size: tuple[int, int], open_steps: bool) -> dict[str, float]:
    reply = written(tokens)
    events = [ThoughtDelta(w.thought, w.token, w.given, w.at_s) for w in reply]
    trace = Trace("Tiles?", "".join(w.thought for w in reply), "600", Made("bench", "none"), Ended("stop"), "", True, tuple(reply))
    app, late, feeds = Host(), list[float](), list[float]()
    gc.collect()
    gc.freeze()  # what was written is not the view's
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.view.focus()
        watch = asyncio.create_task(lateness(late))
        began, cpu = perf_counter(), process_time()
        app.view.begin("Tiles?")
        for at in range(0, tokens, batch):
            before = thread_time()
            app.view.feed(events[at : at + batch])
            feeds.append(thread_time() - before)
            await asyncio.sleep(0)
        before = thread_time()
        app.view.finish(trace)
        finish_s = thread_time() - before
        await pilot.pause()
        cpu, wall = process_time() - cpu, perf_counter() - began
        watch.cancel()
        if open_steps:
            before = perf_counter()
            await pilot.press("x")
            await pilot.pause()
            unfold_s = perf_counter() - before
    app = Host()
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        painted = asyncio.Event()
        before = perf_counter()
        app.view.show(trace)
        app.view.call_after_refresh(painted.set)
        await painted.wait()
        open_s = perf_counter() - before
    return {
        "tokens": tokens, "cpu_s": cpu, "wall_s": wall, "longest_feed_ms": 1e3 * max(feeds), "finish_ms": 1e3 * finish_s,
        "late_median_ms": 1e3 * statistics.median(late), "late_p99_ms": 1e3 * sorted(late)[math.ceil(0.99 * len(late)) - 1],
        "late_longest_ms": 1e3 * max(late), "open_ms": 1e3 * open_s, **({"unfold_all_ms": 1e3 * unfold_s} if open_steps else {}),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    found = asyncio.run(measure(args.tokens, args.batch, (width, height), open_steps=True))
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>16}  {value:,.2f}" if isinstance(value, float) else f"{name:>16}  {value:,}")


if __name__ == "__main__":
    main()
