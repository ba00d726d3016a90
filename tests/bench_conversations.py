"""What many and long conversations cost: `python tests/bench_conversations.py [--turns 200] [--conversations 17] [--size 120x40] [--json]`.

Headless, on a store of its own. Figures: from choosing a conversation until its last answer is painted, at once and until nothing more is
mounted (wall and CPU of the process, milliseconds, the median and the longest of the switches); the same to a turn in its middle; a search
over all messages in the store, and in the list until its rows are painted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time

from localr1.store import Store
from localr1.store.schema import transaction
from localr1.trace.record import Ended, Made, Trace
from localr1.tui.app import ChatApp
from localr1.tui.conversations_screen import ConversationsScreen
from localr1.tui.turn import Turn
from scripted import ScriptedBackend

WORDS = (
    "the of tiles floor count how many wait check answer so first unit square metre gap border strawberry letter number larger smaller "
    "twice half add carry digit place left right model think because therefore again maybe whole part sum product"
).split()
TYPED = ("model tokens", "t", "the", "border strawberry half", "nowhere")


def answer(dice: random.Random, i: int) -> str:
    some = " ".join(dice.choices(WORDS, k=20))
    return f"**{i}** {some}:\n\n- {some}\n- `{i}`\n\n```python\nprint({i})\n```\n" if i % 3 == 0 else f"{some} **{i}**.\n\nEnd of {i}."


def filled(file: Path, conversations: int, turns: int) -> None:
    dice, made = random.Random(1), Made("scripted", "scripted")
    with Store(file) as store:
        for _ in range(conversations):
            here, last = store.new(model="scripted"), None
            with transaction(store._db):
                for i in range(1, turns + 1):
                    thought = " ".join(dice.choices(WORDS, k=60))
                    trace = Trace(
                        " ".join(dice.choices(WORDS, k=10)) + "?",
                        thought,
                        answer(dice, i),
                        made,
                        Ended("stop", "model", new_tokens=100),
                        "",
                    )
                    last = store._replies.insert(here, last, trace)
                    store._replies.write(last, trace, is_over=True)
            store.set_head(here, last)


async def timed(act: Callable[[], Awaitable[object]], done: Callable[[], bool]) -> tuple[float, float]:
    wall, cpu = perf_counter(), process_time()
    await act()
    while not done():
        await asyncio.sleep(0.001)
    return 1e3 * (perf_counter() - wall), 1e3 * (process_time() - cpu)


async def painted(app: ChatApp) -> None:
    event = asyncio.Event()
    app.screen.call_after_refresh(event.set)
    await event.wait()


async def measure(file: Path, turns: int, size: tuple[int, int]) -> dict[str, float]:
    backend = ScriptedBackend(context=10**7)
    app, found = ChatApp(lambda say: backend, history=file), dict[str, float]()
    async with app.run_test(size=size) as pilot:
        while app.engine.session is None:
            await asyncio.sleep(0.01)

        def last_is_painted(number: int) -> Callable[[], bool]:
            return lambda: any(
                t.number == number and t.answer is not None and t.answer.children and t.region.height for t in app.query(Turn)
            )

        async def switch(conversation: int, turn: int | None, number: int) -> tuple[float, float, float]:
            began, cpu = perf_counter(), process_time()
            await app.conversations.go_on(conversation, turn)
            while not last_is_painted(number)():
                await asyncio.sleep(0.001)
            await painted(app)
            first, cpu = perf_counter() - began, process_time() - cpu
            await pilot.pause()
            return 1e3 * first, 1e3 * cpu, 1e3 * (perf_counter() - began)

        for name, times in (
            ("switch", [await switch(1 + i % 5, None, turns) for i in range(12)][2:]),
            ("middle", [await switch(1 + i % 5, (i % 5) * turns + turns // 2, turns // 2) for i in range(7)][2:]),
        ):
            for kind, values in zip(("ms", "cpu_ms", "settled_ms"), zip(*times, strict=True), strict=True):
                found |= {f"{name}_{kind}": statistics.median(values), f"{name}_longest_{kind}": max(values)}
        found["mounted_turns"] = len(app.query(Turn))
        store = app.engine.history.store()
        searches = [
            await timed(lambda typed=typed: asyncio.to_thread(store.search, typed), lambda: True) for typed in TYPED for _ in range(3)
        ]
        found |= {"search_ms": statistics.median(s[0] for s in searches), "search_longest_cpu_ms": max(s[1] for s in searches)}
        await app.conversations.open_screen()
        await pilot.pause()
        shown = app.screen
        assert isinstance(shown, ConversationsScreen)
        lists = []
        for typed in TYPED:
            shown._find.value = typed
            await pilot.pause()
            began = perf_counter()
            await shown.refresh_rows()
            await painted(app)
            lists.append(1e3 * (perf_counter() - began))
        found |= {"list_ms": statistics.median(lists), "list_longest_ms": max(lists)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--conversations", type=int, default=17)
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "h.db"
        filled(file, args.conversations, args.turns)
        found = {"messages": 3.0 * args.turns * args.conversations} | asyncio.run(measure(file, args.turns, (width, height)))
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>26}  {value:,.1f}")


if __name__ == "__main__":
    main()
