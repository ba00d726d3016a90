"""What cutting a thought into steps and guarding it against loops costs, and after how many tokens a loop is found.

python -m tests.trace.bench
"""

from __future__ import annotations

import random
import re
from itertools import cycle, islice
from time import process_time

from localr1.trace.loops import LoopGuard
from localr1.trace.steps import StepCutter
from tests.trace.paragraphs import HELD_OUT, WRITTEN, labelled

TOKENS = 32_000


def main() -> None:
    text = "".join(labelled(marked)[0] for marked in (WRITTEN | HELD_OUT).values())
    words = re.findall(r" ?\w{1,6}|\s+|[^\w\s]", text)  # about what a byte-pair vocabulary makes of it
    ids = {word: i for i, word in enumerate(dict.fromkeys(words))}
    thought, rng = list(islice(cycle(words), TOKENS)), random.Random(1)

    cutter, began = StepCutter(), process_time()
    for word in thought:
        cutter.feed(word, logprob=-0.1, seconds=0.01)
    cutter.finish()
    print(
        f"steps: {(process_time() - began) / TOKENS * 1e6:.1f} us a token, {len(cutter.steps)} steps, {sum(map(len, thought)):,} characters"
    )

    guard, began = LoopGuard(), process_time()
    for word in rng.choices(words, k=TOKENS):
        guard.feed(ids[word])
    print(f"loops: {(process_time() - began) / TOKENS * 1e6:.1f} us a token\n\nperiod  tokens until alarm  copies")
    for period in (*range(1, 61), 80, 100, 200, 400, 800):
        guard, loop = LoopGuard(), rng.sample(range(100_000), period)
        for n, token_id in enumerate(cycle(loop), 1):
            if found := guard.feed(token_id):
                print(f"{period:6}{n:20}{found.repeats:8}")
                break


if __name__ == "__main__":
    main()
