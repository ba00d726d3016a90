"""Where a formula has gaps: around relations and operators, not around signs; TeX's rules, made coarser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localr1.latex.tree import Fenced, Node, Scripts, Symbol, Table

_BEFORE_SIGN = ("", "binary", "relation", "open", "comma", "big", "function")
_ORDINARY = ("letter", "number", "close", "fenced", "text")


@dataclass(frozen=True, slots=True)
class Spaced:
    gap: str  # before it
    node: Node
    kind: str  # of Kind, "fenced" or "sign"


def spaced(items: Sequence[Node], tight: bool = False) -> list[Spaced]:
    """`tight`: as in scripts, where only words stand apart."""
    kinds = _kinds(items)
    found: list[Spaced] = []
    for i, (node, kind) in enumerate(zip(items, kinds, strict=True)):
        before = kinds[i - 1] if i else ""
        apart = bool(i) and _apart(before, kind, tight) and not (_ends_blank(items[i - 1]) or _begins_blank(node))
        found.append(Spaced(" " if apart else "", node, kind))
    return found


def ordinary(kind: str) -> bool:
    """Whether it is something that two of, side by side, are multiplied."""
    return kind in _ORDINARY


def _apart(before: str, kind: str, tight: bool) -> bool:
    if "space" in (before, kind):
        return False
    if before == "function":
        return kind not in ("open", "close", "fenced", "comma")
    if kind == "function" and ordinary(before):
        return True
    if tight:
        return False
    if "relation" in (before, kind) or "binary" in (before, kind) or before in ("comma", "big"):
        return kind != "comma"
    return kind == "big" and ordinary(before)


def _kinds(items: Sequence[Node]) -> list[str]:
    kinds = [_kind(node) for node in items]
    for bars in _bars(items, kinds):
        if len(bars) % 2 == 0:  # of absolute values: they open and close by turns
            for n, i in enumerate(bars):
                kinds[i] = "close" if n % 2 else "open"
    before = ""
    for i, kind in enumerate(kinds):
        if kind == "binary" and (before in _BEFORE_SIGN or i + 1 == len(kinds)):
            kinds[i] = "sign"
        if kind != "space":
            before = kinds[i]
    return kinds


def _bars(items: Sequence[Node], kinds: Sequence[str]) -> list[list[int]]:
    """Where bars stand, by the brackets around them: those of P(A|B) and P(C|D) are no pair."""
    found: list[list[int]] = [[]]
    within = [found[0]]
    for i, node in enumerate(items):
        if kinds[i] == "open":
            found.append([])
            within.append(found[-1])
        elif kinds[i] == "close" and len(within) > 1:
            within.pop()
        elif isinstance(node, Symbol) and node.text in ("|", "‖") and kinds[i] == "letter":
            within[-1].append(i)
    return found


def _kind(node: Node) -> str:
    match node:
        case Symbol():
            return node.kind
        case Scripts(base, limits=True):  # "lim" with what it tends to stands apart like a sum, without it like "sin"
            return "big" if _kind(base) == "function" else _kind(base)
        case Scripts(base):
            return _kind(base)
        case Fenced() | Table():
            return "fenced"
    return "letter"


def _begins_blank(node: Node) -> bool:
    return isinstance(node, Symbol) and node.text[:1] == " "


def _ends_blank(node: Node) -> bool:
    return isinstance(node, Symbol) and node.text[-1:] == " "
