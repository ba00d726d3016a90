"""The course of reinforcement learning as a picture: reward, accuracy, length, how often thoughts turn back.

python curve.py DIR/curve.jsonl ../r1-tiny-teacher/grpo.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 360, 170, 44
PANELS = [
    ("reward", "Mean reward", 1), ("accuracy", "Right replies, %", 100), ("tokens", "Tokens a reply", 1),
    ("backtracks", "Thoughts that say \u201cwait\u201d, %", 100),
]  # fmt: skip


def panel(title: str, values: list[float]) -> str:
    """One line chart, its ends labelled; a thin line for every round, a bold one for the mean of five."""
    low, high = min(values), max(values)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    w, h = WIDTH - MARGIN - 12, HEIGHT - 58

    def points(series: list[float]) -> str:
        return " ".join(
            f"{MARGIN + w * i / max(1, len(series) - 1):.1f},{34 + h * (high - v) / (high - low):.1f}" for i, v in enumerate(series)
        )

    def mean(i: int) -> float:
        near = values[max(0, i - 2) : i + 3]
        return sum(near) / len(near)

    return (
        f'<text x="{MARGIN}" y="20" font-weight="600">{title}</text>'
        f'<path d="M{MARGIN},34v{h}h{w}" fill="none" stroke="#888"/>'
        f'<text x="{MARGIN - 6}" y="40" text-anchor="end">{high:.3g}</text><text x="{MARGIN - 6}" y="{34 + h}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{MARGIN}" y="{50 + h}">round 1</text><text x="{MARGIN + w}" y="{50 + h}" text-anchor="end">{len(values)}</text>'
        f'<polyline points="{points(values)}" fill="none" stroke="#4a6cf7" stroke-opacity="0.35"/>'
        f'<polyline points="{points([mean(i) for i in range(len(values))])}" fill="none" stroke="#4a6cf7" stroke-width="2"/>'
    )


def picture(rounds: list[dict[str, float]]) -> str:
    parts = []
    for i, (key, title, scale) in enumerate(PANELS):
        x, y = i % 2 * WIDTH, i // 2 * HEIGHT
        parts.append(f'<g transform="translate({x},{y})">{panel(title, [scale * r[key] for r in rounds])}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {2 * HEIGHT}" font-family="sans-serif" font-size="11" fill="#333">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    args.picture.write_text(picture([json.loads(line) for line in args.rounds.read_text().splitlines()]))
