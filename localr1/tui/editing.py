"""A piece of text in the person's own editor, with the terminal lent to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from localr1 import editor

if TYPE_CHECKING:
    from localr1.tui.app import ChatApp


def in_editor(app: ChatApp, text: str, name: str) -> str:
    """`text` as the person left it. `name`: of the file that the editor shows. Raises EditorError."""
    edited, problem = text, ""
    try:
        with app.suspend():  # an exception that left it would leave the terminal as it is in there
            try:
                edited = editor.edit(text, name, app.settings.chat.editor)
            except editor.EditorError as error:
                problem = str(error)
    except SuspendNotSupported:
        problem = "This terminal cannot be given to an editor"
    if problem:
        raise editor.EditorError(problem)
    return edited
