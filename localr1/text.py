"""Text from a model, made safe for a terminal."""

from __future__ import annotations

import json
import re

# C0 (but tab and newline), DEL, C1, and the characters that reorder or hide what follows (bidi controls, U+2028/9)
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def printable(text: str) -> str:
    """`text` with control characters shown instead of obeyed: ESC as ␛, other C0 as their pictures, the rest as �."""
    return _UNSAFE.sub(lambda m: chr(0x2400 + ord(m[0])) if ord(m[0]) < 0x20 else "\ufffd", text)


def json_text(value: object, ascii_only: bool = False) -> str:
    """`value` as indented JSON. Exact, and harmless on a terminal: what `printable` would replace is written as \\uXXXX."""
    return _UNSAFE.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=ascii_only, indent=2))
