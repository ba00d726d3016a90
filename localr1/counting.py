"""How many tokens an attachment takes: counted by the model, or about so many."""

from __future__ import annotations

from backends.base import Backend, EngineError, Text
from localr1.attachments import Attachment, block

CHARACTERS_A_TOKEN = 4  # about, in English and in code, with the family's real vocabularies
_TEMPLATE_TOKENS = 16  # about, what the template adds


def estimated(attachment: Attachment) -> int:
    return len(attachment.text) // CHARACTERS_A_TOKEN + _TEMPLATE_TOKENS


def counted(attachment: Attachment, backend: Backend) -> int | None:
    """On the backend's thread. None: it cannot say."""
    try:
        return len(backend.encode([Text(block(attachment))]))
    except EngineError:
        return None


def tokens_text(tokens: int, is_estimate: bool) -> str:
    return f"{'~' if is_estimate else ''}{tokens:,} token{'s' if tokens != 1 else ''}"
