"""Traces as a page: whole, safe to open, small, with links that lead to their places."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import cycle, islice
from xml.etree import ElementTree

import pytest

from backends.base import Token
from localr1.trace.export import export
from localr1.trace.record import Trace
from localr1.trace.timeline import timeline
from localr1.turn import Written
from tests.trace.traces import KINDS, THOUGHT, UNUSUAL, every, imported, long_trace, trace, words, written

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


@pytest.mark.parametrize(
    "text",
    [
        "So 2*3*4 = 24.", "$\\mathbf{v}_{1} + \\mathbf{v}_{2}$", "\\[\nx + y\n- 3 = 5\n\\]", "\\[\n5 \\\\\n---\n\\]",
        "| a | b |\n|---|---|\n| \\(|y|\\) | 2 |", "\\(a_1\\) and \\(b_1 < 2\\)",
    ],
)  # fmt: skip
def test_an_answer_keeps_all_its_signs(text: str) -> None:
    (answer,) = page(trace(answer=text)).texts("div", **{"class": "answer"})
    assert answer.split() == text.split()


def test_the_raw_text_can_be_copied() -> None:
    assert [text.removeprefix("\n") for text in page(trace(["\n\n ", *words(THOUGHT)])).texts("pre", **{"class": "raw"})] == [
        "\n\n " + THOUGHT,
        "It is **42**.",
    ]


def test_a_page_of_single_letters_that_all_differ_stays_small() -> None:
    of = trace(islice(cycle(THOUGHT), 32_000), sure=(0.95, 0.6, 0.3, 0.1))
    assert len(export(of, "html")) < 13.5 * len(of.thought)
