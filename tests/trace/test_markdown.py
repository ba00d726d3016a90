"""Traces as Markdown: they say what they hold, and nothing the model wrote is markup."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt

from localr1.trace.export import export
from localr1.trace.record import Trace
from tests.trace.traces import HOSTILE, KINDS, UNUSUAL, harmless, imported, trace


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
