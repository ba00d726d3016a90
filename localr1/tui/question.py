"""A question in the transcript: what goes with it as chips, not as pages of text."""

from __future__ import annotations

from textual.content import Content

from localr1.attachments import size_text, split
from localr1.text import printable


def question_content(sent: str) -> Content:
    question, attachments = split(sent)
    chips = [Content.styled(printable(f"[{a.name} {size_text(a.nbytes)}]"), "not bold") for a in attachments]
    lines = [Content(" ").join(chips)] if chips else []
    return Content("\n").join([*lines, *([Content(printable(question))] if question or not lines else [])])
