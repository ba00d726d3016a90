"""The timeline of a trace as a picture: as wide as its tokens, well formed, readable."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from localr1.trace.export import export
from localr1.trace.page import THEMES
from localr1.trace.record import Trace
from localr1.trace.timeline import BACK, COLOURS, INK, SOFT, timeline
from tests.trace.traces import KINDS, UNUSUAL, every, long_trace, trace, words


def boxes(of: Trace) -> list[tuple[str, float, float]]:
    """Kind, place and width of what is in the bar."""
    found = ElementTree.fromstring(timeline(of, linked=True))
    rects = (rect for link in every(found, "a") for rect in every(link, "rect") if rect.get("class"))
    return [(rect.get("class", "")[2:], float(rect.get("x", 0)), float(rect.get("width", 0))) for rect in rects]


def test_segments_are_as_wide_as_their_tokens_and_follow_one_another() -> None:
    of = trace(answer="word " * 30)
    found = boxes(of)
    assert [kind for kind, _, _ in found] == [*KINDS, "answer"]
    sizes = [*(step.tokens for step in of.steps), len(of.answer_tokens)]
    scale = sum(wide + 1 for _, _, wide in found) / sum(sizes)
    assert all(abs(wide + 1 - size * scale) < 2.2 for (_, _, wide), size in zip(found, sizes, strict=True))
    assert all(0 <= b[1] - (a[1] + a[2]) < 2.2 for a, b in pairwise(found))


def test_thousands_of_steps_are_drawn_together_and_no_backtrack_is_lost() -> None:
    of = trace([*words("Work it is.\n\n" * 4000), *words("Wait, no.\n\n"), *words("Work it is.\n\n" * 4000)])
    assert sum(step.kind == "backtrack" for step in of.steps) == 1
    assert "backtrack" not in [kind for kind, _, _ in boxes(of)] and timeline(of).count('class="tick"') == 1
    found = boxes(long_trace())
    assert len(found) < 320 < len(long_trace().steps) / 3 and timeline(long_trace()).count('class="tick"') == 2
    assert abs(found[-1][1] + found[-1][2] - 888) < 2 and min(wide for _, _, wide in found) > 0


def test_a_short_answer_to_a_long_thought_can_be_seen() -> None:
    kind, _, wide = boxes(trace(["a "] * 32_000, "42"))[-1]
    assert kind == "answer" and wide > 10


def test_a_long_step_after_thin_ones_is_drawn_alone() -> None:
    of = trace([*words("Wait, no.\n\nLet me check.\n\n"), *["Work"] * 4000, *words("\n\nWait, no.\n\nLet me check.\n\n")])
    assert [kind for kind, _, wide in boxes(of) if wide > 100] == ["work"] and len(boxes(of)) == 4


def test_the_picture_says_in_words_what_it_shows() -> None:
    svg = ElementTree.fromstring(export(trace(), "svg"))
    texts = ["".join(t.itertext()) for t in every(svg, "text")]
    assert texts[0] == "What is 6 * 7?" and svg.get("aria-label") == "Timeline of the reply to: What is 6 * 7?"
    assert f"R1-Distill: {len(trace().tokens)} tokens, " in texts[1] and texts[1].endswith("; finished")
    assert {text.split()[0] for text in texts} >= set(KINDS) and {'"', ">", "-", "<", "?", "=", "A"} <= set(texts)
    assert not list(every(svg, "a"))
    titles = ["".join(t.itertext()) for t in every(svg, "title")]
    assert any(title.startswith("step 4, backtrack, ") and title.endswith("Wait, twice 21 is 42.") for title in titles)


def test_a_long_question_is_shortened_by_what_it_takes_on_screen() -> None:
    for letter, least in (("x", 90), ("中", 45)):
        title = ElementTree.fromstring(export(trace(question=letter * 500), "svg")).findtext(".//{*}text[@class='title']") or ""
        assert least < len(title) <= 2 * least // 2 + 10 and title.endswith("…")


@pytest.mark.parametrize("name", UNUSUAL)
def test_pictures_of_unusual_traces_are_well_formed(name: str) -> None:
    svg = ElementTree.fromstring(export(UNUSUAL[name], "svg"))
    assert all("".join(text.itertext()).strip(" :") for text in every(svg, "text"))
    assert float(svg.get("height", 0)) > 100 and "nan" not in export(UNUSUAL[name], "svg")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_text_is_readable_on_every_ground(theme: int) -> None:
    _, link, box, *shades = THEMES[theme].split()
    fills = [fill[theme] for fill in COLOURS.values()]
    pairs = [(INK[theme], ground) for ground in (*fills, *shades, box, BACK[theme])]
    pairs += [(SOFT[theme], BACK[theme]), (link, BACK[theme])]
    for a, b in pairs:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (a, b)
