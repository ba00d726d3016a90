"""A formula in LaTeX, read into a small tree. What is not known for certain is refused: a wrong formula is worse than a raw one.

The text comes from a model. It is read once, from left to right, and groups in groups only so deep.
"""

from __future__ import annotations

import re
import unicodedata

from localr1.latex import symbols
from localr1.latex.delimiters import MOST_CHARACTERS
from localr1.latex.tree import RULE, Accented, Boxed, Fenced, Fraction, Kind, Node, Root, Row, Scripts, Symbol, Table, Unreadable

DEEPEST = 40  # groups in groups

_TOKEN = re.compile(r"\\(?:operatorname\*|[A-Za-z]+|.)|\s+|.", re.DOTALL)
_TEXT = re.compile(r"(?:[^\\{}$]|\\[ $%#&_{},])*")
_UPRIGHT = ("mathrm", "mathsf", "mathtt")
_SCRIPTED = re.compile(r"\{[^{}]*(?:[\^_]|\\[A-Za-z])")
_FRACTIONS = {"frac": True, "dfrac": True, "tfrac": True, "cfrac": True, "binom": False, "dbinom": False, "tbinom": False}
_WIDE = {"−": "-", "－": "-", "＋": "+", "＝": "=", "（": "(", "）": ")", "，": ",", "／": "/"}  # as they are typed elsewhere
_SKIPPED = re.compile(r"\*?\{[^{}\\]*\}")
_NAME = re.compile(r"\{([A-Za-z]+\*?)\}")


def parse(formula: str) -> Node:
    """Raises Unreadable."""
    if len(formula) > MOST_CHARACTERS:
        raise Unreadable("too long")
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co") and c not in "\t\n" for c in formula):
        raise Unreadable("a control character")
    return _Parser(formula).whole()


class _Parser:
    def __init__(self, formula: str) -> None:
        self._text = formula
        self._at = 0
        self._deep = 0

    def whole(self) -> Node:
        rows = self._rows("", aligned=True)
        if any(len(row) > 1 for row in rows):
            raise Unreadable("& outside of a table")
        return rows[0][0] if len(rows) == 1 else Table("", rows, "", aligned=True)

    # tokens

    def _peek(self) -> str:
        """The next token; "" at the end. White space counts nowhere but in texts."""
        while found := _TOKEN.match(self._text, self._at):
            if not found[0].isspace():
                return found[0]
            self._at = found.end()
        return ""

    def _next(self) -> str:
        token = self._peek()
        self._at += len(token)
        return token

    def _take(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self._at += len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise Unreadable(f"{token} is missing")

    # rows

    def _row(self, *ends: str) -> Row:
        """Up to one of `ends`, which is left where it is."""
        self._deep += 1
        if self._deep > DEEPEST:
            raise Unreadable("too deep")
        items: list[Node] = []
        while (token := self._peek()) not in ends:
            if not token:
                raise Unreadable(f"{' or '.join(ends)} is missing")
            if token in ("^", "_", "'"):
                items.append(self._scripts(items.pop() if items else Row(())))
            else:
                items += self._item()
        self._deep -= 1
        return Row(tuple(items))

    def _item(self) -> list[Node]:
        """What comes next; nothing, where that is only a matter of layout."""
        token = self._next()
        if token.startswith("\\"):
            return self._command(token[1:])
        if token == "{":
            row = self._row("}")
            self._expect("}")
            return [row]
        if token in "}&":
            raise Unreadable(f"{token} out of place")
        return [self._character(token)]

    def _character(self, c: str) -> Node:
        c = _WIDE.get(c, c)
        if c.isascii() and c.isdigit():
            number = re.compile(r"[0-9]*(?:\.[0-9]+|,(?:\\!)?[0-9]{3}(?![0-9]))*").match(self._text, self._at)
            assert number is not None
            self._at = number.end()
            return Symbol(c + number[0].replace("\\!", ""), "number")
        if c in "+-*/":
            return Symbol("∗" if c == "*" else c, "letter" if c == "/" else "binary")
        if c in "=<>:":
            return Symbol(c, "relation")
        if c in ",;":
            return Symbol(c, "comma")
        if c in symbols.OPENING:
            return Symbol(c, "open")
        if c in symbols.CLOSING:
            return Symbol(c, "close")
        if c in "$#^_":
            raise Unreadable(f"{c} out of place")
        return Symbol(" ", "space") if c == "~" else Symbol(c, _KIND_OF.get(c, "letter"))

    def _scripts(self, base: Node) -> Node:
        """What is raised and lowered behind `base`, in either order."""
        sub: Node | None = None
        sup: list[Node] = []
        raised = False
        if isinstance(base, Scripts) and base.limits:  # \overset{a}{b}_c
            sub, sup, raised = base.sub, [base.sup] if base.sup is not None else [], base.sup is not None
        limits = isinstance(base, Symbol | Scripts) and base.limits
        base = base.base if isinstance(base, Scripts) and base.limits else base
        while (token := self._peek()) in ("^", "_", "'"):
            self._next()
            if token == "'" and not raised:
                sup.append(Symbol("′"))
            elif token == "^" and not raised:
                raised = True
                sup.append(self._argument())
            elif token == "_" and sub is None:
                sub = self._argument()
            else:
                raise Unreadable(f"a second {token}")
        if isinstance(base, Symbol) and base.text == "∗" and base.kind == "binary":
            base = Symbol("∗")
        raised_row = sup[0] if len(sup) == 1 else Row(tuple(sup)) if sup else None
        return Scripts(base, sub, raised_row, limits)

    # commands

    def _argument(self) -> Node:
        """A group, or a single token: \\frac12 is a half."""
        token = self._peek()
        if not token or token in ("^", "_", "'", "}", "&", "\\\\"):
            raise Unreadable("an argument is missing")
        if token.isdigit() and token.isascii():
            return Symbol(self._next(), "number")
        self._deep += 1
        if self._deep > DEEPEST:
            raise Unreadable("too deep")
        items = self._item()
        self._deep -= 1
        return items[0] if len(items) == 1 else Row(tuple(items))

    def _command(self, name: str) -> list[Node]:
        if name in symbols.IGNORED:
            return []
        if name in symbols.SKIPPED:
            self._skip()
            return [Symbol("  ", "space")] if name == "hspace" else []
        if name in symbols.SPACES:
            return [Symbol(symbols.SPACES[name], "space")] if symbols.SPACES[name] else []
        for table, kind in _KINDS:
            if name in table:
                return [self._not()] if name == "not" else [Symbol(table[name], kind, limits=kind == "big")]
        if name in ("mod", "bmod"):
            return [Symbol("mod", "function")]
        if name in symbols.FUNCTIONS or name in symbols.WITH_LIMITS:
            return [Symbol(name, "function", limits=name in symbols.WITH_LIMITS)]
        if name in _UPRIGHT and _SCRIPTED.match(self._text, self._at):  # units: m/s^2
            unit = self._argument()
            return list(unit.items) if isinstance(unit, Row) else [unit]
        if name in symbols.TEXTS or name == "operatorname*":
            return [self._texts(name)]
        if name in symbols.PLAIN:
            return [self._argument()]
        if name in symbols.ALPHABETS:
            return [self._alphabet(symbols.ALPHABETS[name])]
        if name in symbols.ACCENTS:
            return [Accented(self._argument(), symbols.ACCENTS[name])]
        if name in _FRACTIONS:
            return [Fraction(self._argument(), self._argument(), _FRACTIONS[name])]
        structure = getattr(self, f"_{name}_", None)
        if structure is None:
            raise Unreadable(f"\\{name}")
        node: Node = structure()
        return [node]

    def _skip(self) -> None:
        found = _SKIPPED.match(self._text, self._at)
        if found is None:
            raise Unreadable("an argument is missing")
        self._at = found.end()

    def _not(self) -> Node:
        items = self._item()
        if len(items) == 1 and isinstance(items[0], Symbol) and items[0].text in symbols.NEGATED:
            return Symbol(symbols.NEGATED[items[0].text], "relation")
        raise Unreadable("\\not")

    def _texts(self, name: str) -> Node:
        self._expect("{")
        found = _TEXT.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        self._expect("}")
        text = re.sub(r"\\(.)", r"\1", re.sub(r"\\,", " ", re.sub(r"[\s~]+", " ", found[0])))
        if name.startswith("operatorname"):
            return Symbol(text, "function", limits=name.endswith("*") or text in symbols.WITH_LIMITS)
        return Symbol(text, "letter" if name == "mathrm" and len(text) == 1 else "text")

    def _alphabet(self, alphabet: str) -> Node:
        braced = self._take("{")
        letters = re.compile(r"[A-Za-z0-9]+" if braced else r"\s*[A-Za-z0-9]").match(self._text, self._at)
        found = [symbols.letter(c, alphabet) for c in letters[0].strip()] if letters is not None else []
        if letters is None or None in found:
            raise Unreadable("no such letter")
        self._at = letters.end()
        if braced:
            self._expect("}")
        return Symbol("".join(filter(None, found)))

    def _sqrt_(self) -> Node:
        index: Node | None = None
        if self._take("["):
            index = self._row("]")
            self._expect("]")
        return Root(self._argument(), index)

    def _boxed_(self) -> Node:
        return Boxed(self._argument())

    _fbox_ = _boxed_

    def _left_(self) -> Node:
        left = self._fence()
        body = self._row("\\right")
        self._expect("\\right")
        return Fenced(left, body, self._fence())

    def _fence(self) -> str:
        token = self._next()
        if token in ("(", ")", "[", "]", "|", "/"):
            return token
        if token == ".":
            return ""
        name = {"<": "langle", ">": "rangle"}.get(token, token.removeprefix("\\"))
        if name not in symbols.FENCES:
            raise Unreadable(f"{token} is no bracket")
        return symbols.FENCES[name]

    def _middle_(self) -> Node:
        return Symbol(self._fence(), "relation")

    def _overset_(self) -> Node:
        over = self._argument()
        return Scripts(self._argument(), None, over, limits=True)

    _stackrel_ = _overset_

    def _underset_(self) -> Node:
        under = self._argument()
        return Scripts(self._argument(), under, None, limits=True)

    def _xrightarrow_(self) -> Node:
        return Scripts(Symbol("⟶", "relation"), None, self._argument(), limits=True)

    def _underbrace_(self) -> Node:
        return Scripts(Fenced("(", self._argument(), ")"), None, None, limits=True)

    _overbrace_ = _underbrace_

    def _pmod_(self) -> Node:
        return Row((Symbol(" ", "space"), Fenced("(", Row((Symbol("mod", "function"), self._argument())), ")")))

    def _tag_(self) -> Node:
        return Row((Symbol("    ", "space"), Fenced("(", self._texts("text"), ")")))

    def _textcolor_(self) -> Node:
        self._skip()
        return self._argument()

    # tables

    def _substack_(self) -> Node:
        self._expect("{")
        rows = self._rows("}", aligned=True)
        self._expect("}")
        return Table("", rows, "", aligned=True)

    def _begin_(self) -> Node:
        name = self._environment()
        aligned = name in symbols.ALIGNED
        if not aligned and name not in symbols.MATRICES:
            raise Unreadable(name)
        columns = self._columns() if name in ("array", "alignedat") else ""
        left, right = ("", "") if aligned else symbols.MATRICES[name]
        rows = self._rows("\\end", aligned)
        self._expect("\\end")
        if self._environment() != name:
            raise Unreadable(f"\\end{{{name}}} is missing")
        return Table(left, rows, right, aligned, columns)

    def _environment(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise Unreadable("a name is missing")
        self._at = found.end()
        return found[1]

    def _columns(self) -> str:
        found = re.compile(r"\s*\{[lcr|0-9\s]*\}").match(self._text, self._at)
        if found is None:
            raise Unreadable("these columns")
        self._at = found.end()
        return re.sub(r"[^lcr|]", "", found[0]).replace("||", "|")

    def _rows(self, end: str, aligned: bool) -> tuple[tuple[Node, ...], ...]:
        """Cells between &, rows between \\\\, up to `end`."""
        rows: list[tuple[Node, ...]] = []
        cells: list[Node] = []
        while True:
            while end == "\\end" and not cells and self._take("\\hline"):
                rows.append((RULE,))
            cells.append(self._row("&", "\\\\", end))
            if self._take("&"):
                continue
            rows.append(tuple(cells))
            cells = []
            if not self._take("\\\\"):
                break
            spacing = re.compile(r"\[[0-9.]+(?:pt|em|ex|mm|cm)\]").match(self._text, self._at)
            self._at = spacing.end() if spacing is not None else self._at
        if len(rows) > 1 and rows[-1] == (Row(()),):
            rows.pop()
        return tuple(rows)


_KINDS: tuple[tuple[dict[str, str], Kind], ...] = (
    (symbols.LETTERS, "letter"),
    (symbols.BINARIES, "binary"),
    (symbols.RELATIONS, "relation"),
    (symbols.BIG, "big"),
    (symbols.OPENING, "open"),
    (symbols.CLOSING, "close"),
    ({"|": "‖", "vert": "|", "Vert": "‖", "backslash": "∖"}, "letter"),
)

_KIND_OF = {text: kind for table, kind in _KINDS for text in table.values() if not text.isascii()}
