"""Exports of a trace: that they say what it holds, read back, do no harm whatever a model wrote, and stay small and quick."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import cycle, islice, pairwise
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from backends.base import Sampling, Token
from localr1.trace.export import FORMS, Form, export, from_jsonl
from localr1.trace.page import THEMES
from localr1.trace.record import Ended, Made, Trace, TraceError, from_json, to_json
from localr1.trace.timeline import BACK, COLOURS, INK, SOFT, timeline
from localr1.turn import Written
from tests.trace.paragraphs import HELD_OUT, WRITTEN, labelled

THOUGHT = (
    "Okay, so I need to find 6 * 7.\n\nFirst, I will add six sevens.\n\n7 + 7 + 7 = 21, twice that is 43.\n\n"
    "Wait, twice 21 is 42.\n\nLet me check: 42 / 7 = 6.\n\nSo the answer is 42.\n"
)
KINDS = ["restate", "plan", "work", "backtrack", "check", "conclude"]
HOSTILE = (
    "</script><script>alert(1)</script> <img src=x onerror=alert(1)> ]]> --> <!-- \" ' & &lt; &#x202e; \x1b[31m\x00\r \u202e\u2066 \u061c\ud800 \ufffe"
    "\n\n```\n</details>\n````\n\n# x\n![a](http://x.y/z.png) [b](javascript:alert(1)) <http://q.r> ~~~\n| a | b |\n|---|---|\n\n\n    code\n\n***\n===\n[r]: http://s.t\n"
    "</textarea></title></style></pre></svg> $x$ \\(y\\) {{z}} 中文 🙂\n1. one\n- two"
)
SHORT_S = 3.0  # for 32,000 tokens, on a busy machine; measured: 0.1 to 0.9


def words(text: str) -> list[str]:
    return re.findall(r" ?\w{1,6}|\s+|[^\w\s]", text)


def written(text: str, part: str = "thought", p: float = 0.95, at_s: float = 0.0, given: bool = False) -> Written:
    others = ((7, " <other>", math.log(max(1e-9, 1 - p))),) if p < 0.9 else ()
    token = Token(len(text), text, math.nan if given else math.log(p), others)
    return Written(token, part, text if part == "thought" else "", text if part == "answer" else "", given, at_s)  # type: ignore[arg-type]


def trace(
    thought: Iterable[str] = words(THOUGHT),
    answer: str = "It is **42**.",
    sure: Iterable[float] = (0.95,),
    question: str = "What is 6 * 7?",
) -> Trace:
    tokens = [written(text, p=p) for text, p in zip(thought, cycle(sure), strict=False)]
    tokens.append(Written(Token(2, "</think>", -0.01), "thought", "", "", False, 0.0))
    tokens += [written(text, "answer") for text in words(answer)]
    tokens = [replace(w, at_s=round(0.1 + 0.02 * i, 4)) for i, w in enumerate(tokens)]
    made = Made("R1-Distill", "llama.cpp", "Qwen2.5-7B", "Q4_K_M", Sampling(seed=3), 500)
    ended = Ended("stop", "model", 30, 0, len(tokens), 0.3, 2.0)
    joined = "".join(w.thought for w in tokens)
    return Trace(question, joined, answer, made, ended, "2026-11-22T05:40:00Z", True, tuple(tokens))


def long_trace(count: int = 32_000) -> Trace:
    text = "\n\n".join(labelled(marked)[0] for marked in (WRITTEN | HELD_OUT).values())
    rng = random.Random(1)
    return trace(islice(cycle(words(text)), count), sure=[max(1e-4, rng.betavariate(3, 0.35)) for _ in range(997)])


def imported(thought: str = THOUGHT, answer: str = "42") -> Trace:
    """Only its text is known."""
    return Trace("6 * 7?", thought, answer, Made("", ""), Ended("stop", "model"), "")


UNUSUAL = {
    "imported": imported(),
    "nothing yet": Trace("6 * 7?", "", "", Made("", ""), Ended(), ""),
    "no thought": replace(trace([]), ended=Ended("stop", "bypassed")),
    "blank thought": trace(["\n", "\n"]),
    "in mid-thought": replace(trace(answer=""), ended=Ended("context", "unclosed")),
    "hostile": trace([HOSTILE[i : i + 3] for i in range(0, len(HOSTILE), 3)], HOSTILE, (0.05, 0.99, 0.6), HOSTILE),
    "hostile, imported": imported(HOSTILE, HOSTILE),
    "hostile names": replace(trace(), made=Made(HOSTILE, HOSTILE, HOSTILE, HOSTILE), ended=Ended(HOSTILE, HOSTILE), started_at=HOSTILE),  # type: ignore[arg-type]
}


# --------------------------------------------------------------------------------------------------- a page, taken apart

VOID = {"meta", "input", "br", "hr"}


class Page(HTMLParser):
    """Elements as (tag, attributes, text within); fails where tags are not balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(page)
        self.close()
        assert not self._open, "unclosed elements"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for i in self._open:
            self.elements[i][2].append(data)

    def values(self, attribute: str) -> list[str]:
        return [value or "" for _, attributes, _ in self.elements if (value := attributes.get(attribute)) is not None]

    def texts(self, tag: str = "", **attributes: str) -> list[str]:
        return ["".join(text) for t, a, text in self.elements if t == (tag or t) and all(a.get(k) == v for k, v in attributes.items())]


def page(of: Trace) -> Page:
    return Page(export(of, "html"))


def harmless(text: str) -> bool:
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe]", text)


# ----------------------------------------------------------------------------------------------------------- every form


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", UNUSUAL)
def test_whatever_the_model_wrote_an_export_is_text_that_nothing_obeys(name: str, form: Form) -> None:
    text = export(UNUSUAL[name], form)
    text.encode()
    assert harmless(text) and text.endswith("\n")


@pytest.mark.parametrize("form", FORMS)
def test_32_000_tokens_take_a_second_or_so(form: Form) -> None:
    of = long_trace()
    began = time.process_time()
    text = export(of, form)
    assert time.process_time() - began < SHORT_S
    if form not in ("json", "jsonl"):
        assert len(text) < 12 * len(of.thought)


# ----------------------------------------------------------------------------------------------------------- json, jsonl


@pytest.mark.parametrize("of", [trace(), long_trace(300), *UNUSUAL.values()])
def test_json_and_jsonl_are_read_back_as_they_were(of: Trace) -> None:
    strict = json.loads(export(of, "json"), parse_constant=pytest.fail)
    assert strict == to_json(of)
    assert to_json(from_json(strict)) == to_json(of) == to_json(from_jsonl(export(of, "jsonl")))


def test_json_is_indented_and_has_a_line_for_each_token() -> None:
    lines = export(trace(["Okay"] * 40), "json").split("\n")
    assert lines[1] == '  "version": 1,'
    assert sum('"text": "Okay"' in line for line in lines) == 40


def test_a_probability_of_zero_is_valid_json() -> None:
    never = Written(Token(1, "x", -math.inf, ((2, "y", -math.inf),)), "thought", "x", "", False, 0.0)
    of = replace(trace(), thought="x", tokens=(never,))
    for text in (export(of, "json"), *export(of, "jsonl").splitlines()):
        json.loads(text, parse_constant=pytest.fail)
    assert from_jsonl(export(of, "jsonl")).tokens[0].token.logprob < -1e6


def test_jsonl_can_be_read_before_its_end() -> None:
    lines = export(trace(), "jsonl").splitlines(keepends=True)
    assert [json.loads(line)["type"] for line in lines] == ["trace", *["token"] * len(trace().tokens), "end"]
    half = from_jsonl("".join(lines[:9]) + lines[9][:-8])  # cut within a line
    assert half.tokens == trace().tokens[:8] and half.ended.reason == ""
    assert half.thought == "".join(w.thought for w in half.tokens) and THOUGHT.startswith(half.thought)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [],
        lambda lines: lines[1:],
        lambda lines: [*lines[:2], "{", *lines[2:]],
        lambda lines: [*lines[:2], "[]", *lines[2:]],
        lambda lines: [*lines, lines[1]],
        lambda lines: [lines[0], *lines],
        lambda lines: [lines[0].replace('"version": 1', '"version": 99'), *lines[1:]],
        lambda lines: [lines[0].replace('"type"', '"tokens": 5, "type"'), '{"type": "token"}', *lines[1:]],
    ],
)
def test_jsonl_that_is_no_trace_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(TraceError):
        from_jsonl("\n".join(change(export(trace(), "jsonl").splitlines())) + "\n")


# ------------------------------------------------------------------------------------------------------------- Markdown


@pytest.mark.parametrize("of", [trace(), trace([HOSTILE]), trace(["a\n````\nb\n```"]), imported()])
def test_the_raw_thought_can_be_taken_out_of_markdown(of: Trace) -> None:
    found = [token.content for token in MarkdownIt().parse(export(of, "md")) if token.type == "fence" and token.info == "text"]
    raw = found[-1].removesuffix("\n")
    assert len(raw) == len(of.thought) and (raw == of.thought or not harmless(of.thought))


def test_markdown_has_question_model_steps_answer_and_figures() -> None:
    text = export(trace(), "md")
    assert "> What is 6 \\* 7?" in text and "R1-Distill (distilled into Qwen2.5-7B, Q4\\_K\\_M, llama.cpp)" in text
    assert re.findall(r"^`(.)` \*\*(\d) (\w+)\*\*", text, re.M) == [
        (m, str(i), k) for i, (m, k) in enumerate(zip('">-<?=', KINDS, strict=True), 1)
    ]
    assert "It is **42**." in text and "steps: 6: 1 backtrack, 1 check" in text and "budget of 500 thought tokens" in text


@pytest.mark.parametrize("name", ["hostile", "hostile names"])
def test_nothing_the_model_wrote_is_markdown(name: str) -> None:
    parsed = MarkdownIt("gfm-like", {"linkify": False}).parse(export(UNUSUAL[name], "md"))
    every = [*parsed, *(child for token in parsed for child in token.children or ())]
    assert not {"image", "link_open", "html_inline", "table_open", "code_block", "bullet_list_open", "math_inline"} & {
        t.type for t in every
    }
    html = "".join(t.content for t in every if t.type == "html_block")
    assert re.sub(r"</?(details|summary)>|[\w ,]", "", html).strip() == ""
    assert [t.tag for t in every if t.type == "heading_open"] == ["h1", "h2", "h2"]


def test_code_in_an_answer_stays_code_and_lines_stay_lines() -> None:
    answer = "Run:\n```python\nif a < b:\n    print('**')\n```\nx_1 = 2\n  y"
    parsed = MarkdownIt().parse(export(trace(answer=answer), "md"))
    assert [t.content for t in parsed if t.type == "fence" and t.info == "python"] == ["if a < b:\n    print('**')\n"]
    assert any(
        [c.type for c in t.children or ()] == ["text", "hardbreak", "text"] and "x_1 = 2" in (t.children or [])[0].content for t in parsed
    )


# ----------------------------------------------------------------------------------------------------------------- page


@pytest.mark.parametrize("of", [trace(), long_trace(2000), *UNUSUAL.values()])
def test_the_page_is_whole_and_needs_nothing_else(of: Trace) -> None:
    html = export(of, "html")
    found = Page(html)
    ids = found.values("id")
    assert not [i for i, n in Counter(ids).items() if n > 1]
    assert {link[1:] for link in found.values("href")} <= set(ids) and all(link.startswith("#") for link in found.values("href"))
    assert not {"src", "style", "action", "srcset", "data"} & {name for _, attributes, _ in found.elements for name in attributes}
    assert not any(name.startswith("on") for _, attributes, _ in found.elements for name in attributes)
    assert not {"img", "iframe", "object", "link", "base", "form", "video"} & {tag for tag, _, _ in found.elements}
    assert not re.search(r"@import|url\((?!#)", "".join(found.texts("style")))


def test_the_only_script_is_the_one_that_the_policy_knows() -> None:
    found = page(UNUSUAL["hostile"])
    (script,) = found.texts("script")
    (policy,) = found.values("content")[:1]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'")


def test_steps_stand_there_in_words_and_as_written() -> None:
    of = trace(sure=(0.95, 0.1, 0.6, 0.3))
    found = page(of)
    assert [a["class"] for tag, a, _ in found.elements if tag == "details" and "id" in a] == KINDS
    assert found.texts("p")[-len(of.steps) - 1 : -1] == [of.step_text(step).strip() for step in of.steps]
    assert found.texts("summary")[3].split()[:2] == ["backtrack", "4"]
    assert '.backtrack summary::before { content: "<"; }' in found.texts("style")[0]


def test_hostile_text_is_shown_not_obeyed() -> None:
    found = page(UNUSUAL["hostile"])
    shown = "".join(found.texts("p"))
    assert (
        "</script><script>alert(1)</script>" in shown
        and "\u241b[31m" in shown
        and "&#x202e;" in shown
        and "<img src=x onerror=alert(1)>" in shown
    )
    assert "javascript:alert(1)" in "".join(found.texts("div", **{"class": "answer"}))


def test_shades_are_of_the_tokens_that_were_unsure() -> None:
    found = page(trace(["Okay,", " six", " and", " seven"], sure=(0.95, 0.7, 0.3, 0.1)))
    assert [found.texts(tag)[1:] for tag in "uib"] == [[" six"], [" and"], [" seven"]]  # the first is the key
    given = trace(["Okay"])
    given = replace(given, thought="Okay Wait", tokens=(given.tokens[0], written(" Wait", given=True)))
    assert page(given).texts("ins") == [" Wait"]
    assert not page(imported()).texts("input", id="sure")
    blank = trace([*["z"] * 20, " a", "  ", "b"], sure=(*[0.1] * 20, 0.6, 0.95, 0.99))
    assert page(blank).texts("u")[1:] == [" a  "]  # blanks go with what is before them


def test_neighbours_of_one_shade_are_one_element() -> None:
    assert len(page(trace([" a"] * 500, sure=(0.6,))).texts("u")) <= 26  # those that have a link to them are their own
    alike = trace([" a"] * 500, sure=[0.89] * 499 + [0.01])
    assert len(export(alike, "html")) < len(export(trace([" a"] * 500), "html")) + 3000


def test_least_certain_tokens_lead_to_their_places_with_what_else_was_likely() -> None:
    of = trace(["Okay,", " it", " is", " 43"], sure=(0.99, 0.99, 0.99, 0.25))
    found = page(of)
    (item,) = found.texts("li")
    assert "…Okay, it is" in item and "␣43 25%" in item and "instead of ␣<other>␣".rstrip("␣") in item and "75%" in item
    assert found.texts(id="t3") == [" 43"] and "#t3" in found.values("href")


def test_an_unsure_token_in_two_steps_has_one_place() -> None:
    found = page(trace(["Okay", ".\n\nWait", ", no", " it", " is"], sure=(0.99, 0.05, 0.99, 0.99, 0.99)))
    assert found.texts("b", id="t1") == ["."] and found.texts("b")[1:] == [".", "Wait"]


def test_an_alternative_of_unknown_probability_is_left_out() -> None:
    odd = Written(Token(1, "x", -1.0, ((2, "y", math.nan), (1, "x", -1.0))), "thought", "x", "", False, 0.0)
    (item,) = page(replace(trace(), thought="x", tokens=(odd,))).texts("li")
    assert item == "the beginning x 37%"


def test_backtracks_and_checks_are_linked_with_one_another() -> None:
    text = export(trace(), "html")
    assert '<a href="#s4">First backtrack or check</a>' in text
    assert re.findall(r'href="#(s\d)">(next|‹ previous)', text) == [("s5", "next"), ("s4", "‹ previous")]


def test_the_timeline_leads_to_every_step_and_the_answer() -> None:
    svg = ElementTree.fromstring(timeline(trace(), linked=True))
    assert [a.get("href") for a in every(svg, "a")] == [f"#s{i}" for i in range(1, 7)] + ["#answer"]


def test_an_answers_markdown_is_rendered_without_what_leads_elsewhere() -> None:
    (answer,) = page(trace(answer="**42**\n\n| a |\n|---|\n| b |\n\n![p](http://x.y) \\[x_1\\] <b> &lt;")).texts(
        "div", **{"class": "answer"}
    )
    assert answer.split() == ["42", "a", "b", "![p](http://x.y)", "\\[x_1\\]", "<b>", "&lt;"]


def test_the_raw_text_can_be_copied() -> None:
    assert [text.removeprefix("\n") for text in page(trace(["\n\n ", *words(THOUGHT)])).texts("pre", **{"class": "raw"})] == [
        "\n\n " + THOUGHT,
        "It is **42**.",
    ]


def test_a_page_of_single_letters_that_all_differ_stays_small() -> None:
    of = trace(islice(cycle(THOUGHT), 32_000), sure=(0.95, 0.6, 0.3, 0.1))
    assert len(export(of, "html")) < 13.5 * len(of.thought)


# ------------------------------------------------------------------------------------------------------------- timeline


def every(within: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return within.findall(f".//{{*}}{tag}")


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
