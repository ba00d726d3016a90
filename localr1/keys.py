"""Keys: one table of what they do, which bindings, the help and the checks of [keys] are made from; and the keys as a person has set them.

Keys are written as Textual calls them: "ctrl+o", "pageup", "question_mark"; a person may write "Ctrl+O", "PgUp", "?", too.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from localr1.settings import SettingError

PLACES = ANYWHERE, CHAT, INPUT, TRACE, STEERING = "Anywhere", "The chat", "The input", "The trace", "Steering from the trace"


@dataclass(frozen=True, slots=True)
class Action:
    """`keys`: the ones it has by itself, several with commas. `help`: "" where the action before tells of both. `does`: Textual's action,
    where it has another name."""

    name: str
    where: str
    keys: str
    help: str
    does: str = ""


_TABLE = (
    Action("help", ANYWHERE, "f1", "this; ? does it too while the input is empty"),
    Action("palette", ANYWHERE, "ctrl+p", "find a command by its name"),
    Action("interrupt", ANYWHERE, "ctrl+c", "stop the reply, else copy what is selected, else clear the input, twice: quit"),
    Action("suspend", ANYWHERE, "ctrl+z", "back to the shell; fg goes on", "suspend_process"),
    Action("quit", ANYWHERE, "ctrl+q", "leave"),
    Action("stop", CHAT, "escape", "stop the reply; what has come stays", "cancel"),
    Action("answer_now", CHAT, "ctrl+n", "answer now: close the thought being written"),
    Action("fold", CHAT, "ctrl+o", "fold or unfold the last thought; Tab goes to others"),
    Action("trace", CHAT, "ctrl+t", "show, enter, hide the trace"),
    Action("models", CHAT, "f2", "models: which are here, which can be pulled; go on with another"),
    Action("chats", CHAT, "ctrl+l", "conversations: find one, go on with it, rename, delete"),
    Action("raw", CHAT, "ctrl+r", "show answers as the model wrote them, and back"),
    Action("copy_answer", CHAT, "ctrl+s", "copy the last answer; /copy code copies its code"),
    Action("edit_question", CHAT, "ctrl+g", "write the question in your editor"),
    Action("page_up", CHAT, "pageup", "scroll", "page(-1)"),
    Action("page_down", CHAT, "pagedown", "", "page(1)"),
    Action("to_end", CHAT, "ctrl+end", "scroll to the end, and follow it"),
    Action("send", INPUT, "enter", "send"),
    Action("new_line", INPUT, "shift+enter,alt+enter,ctrl+j", "a new line"),
    Action("undo", INPUT, "ctrl+underscore,ctrl+shift+minus,super+z", "undo; Ctrl+Y redoes"),
    Action("trace_up", TRACE, "up,k", "the step before, the next step"),
    Action("trace_down", TRACE, "down,j", ""),
    Action("trace_first", TRACE, "g,home", "the first and the last step"),
    Action("trace_last", TRACE, "G,end", ""),
    Action("trace_open", TRACE, "enter", "fold or unfold, take what is selected; a click does it too"),
    Action("trace_fold", TRACE, "space", "fold or unfold"),
    Action("trace_fold_all", TRACE, "x", "unfold or fold all"),
    Action("trace_next", TRACE, "n", "next, previous backtrack or check; in a search, match"),
    Action("trace_previous", TRACE, "N", ""),
    Action("trace_shade", TRACE, "c", "shade the text by how likely its tokens were"),
    Action("trace_unsure", TRACE, "u", "least certain tokens, and what else was likely there"),
    Action("trace_search", TRACE, "/", "search in thought and answer; Esc ends it"),
    Action("trace_copy", TRACE, "y", "copy the step, or everything, as raw text"),
    Action("trace_copy_all", TRACE, "Y", ""),
    Action("trace_help", TRACE, "?", "these keys"),
    Action("trace_answer", STEERING, "a", "answer now, from what has been thought"),
    Action("trace_longer", STEERING, "w", "think longer"),
    Action("trace_edit", STEERING, "e", "edit the thought, and go on from there"),
    Action("trace_reroll", STEERING, "r", "re-roll from here on, or the answer alone"),
    Action("trace_reroll_answer", STEERING, "R", ""),
)

# Keys that stay what they are.
_FIXED = {INPUT: [("Up, Down", "what was sent before, and back to what you were writing"), ("Tab", "complete a command")]}

ACTIONS = {action.name: action for action in _TABLE}

_MODIFIERS = ("alt", "ctrl", "hyper", "meta", "shift", "super")
_OTHER_NAMES = {
    "esc": "escape", "return": "enter", "del": "delete", "ins": "insert", "pgup": "pageup", "page_up": "pageup", "pgdn": "pagedown",
    "page_down": "pagedown", "solidus": "slash", "reverse_solidus": "backslash", "commercial_at": "at", "hyphen_minus": "minus",
    "plus_sign": "plus", "low_line": "underscore",
}  # fmt: skip
_SAME = {"ctrl+i": "tab", "ctrl+m": "enter", "ctrl+left_square_bracket": "escape", "ctrl+space": "ctrl+at"}  # in a terminal
_SHOWN = {"escape": "Esc", "pageup": "PageUp", "pagedown": "PageDown"}


def _name_of(character: str) -> str:
    name = unicodedata.name(character, "").lower().replace("-", "_").replace(" ", "_")
    return _OTHER_NAMES.get(name, name)


_PUNCTUATION = {_name_of(character): character for character in string.punctuation}
_NAMES = {
    "escape", "enter", "tab", "space", "backspace", "delete", "insert", "home", "end", "pageup", "pagedown", "up", "down", "left", "right",
    *(f"f{n}" for n in range(1, 25)), *_PUNCTUATION,
}  # fmt: skip


def named(key: str) -> str:
    """A key as Textual calls it; "" if there is none of that name."""
    key = key if key == " " else key.strip()
    front, _, base = key[:-1].rpartition("+")
    base += key[-1:]
    modifiers = sorted(set(front.lower().split("+"))) if front else []
    if len(base) > 1:
        base = _OTHER_NAMES.get(base.lower(), base.lower())
    elif not base.isalnum():
        base = _name_of(base) if base else ""
    elif modifiers:
        base = base.lower()
    if any(word not in _MODIFIERS for word in modifiers) or not (len(base) == 1 or base in _NAMES):
        return ""
    whole = "+".join([*modifiers, base])
    return _SAME.get(whole, whole)


def shown(key: str) -> str:
    """For people: "Ctrl+O"."""
    *modifiers, base = key.split("+")
    base = _SHOWN.get(base, _PUNCTUATION.get(base, base.capitalize() if len(base) > 1 else base.upper() if modifiers else base))
    return "+".join([*(word.capitalize() for word in modifiers), base])


def key_problem(action: str, keys: str) -> str:
    """Why these keys cannot be given to this action; "" if they can."""
    if action not in ACTIONS:
        near = get_close_matches(action, ACTIONS, 1)
        return f"there is no action {action} for keys" + (f"; did you mean {near[0]}?" if near else "; F1 in the chat lists the keys")
    if not keys.strip():
        return f'keys.{action} is empty; name keys, for example "ctrl+x" or "f2,ctrl+x"'
    for key in keys.split(","):
        name = named(key)
        if not name:
            return f'keys.{action}: there is no key "{key.strip()}"; name one as "ctrl+x", "f2", "alt+enter"'
        if ACTIONS[action].where not in (TRACE, STEERING) and _types(name):
            return f'keys.{action}: "{key.strip()}" is needed for typing; take one with Ctrl or Alt, or F1 to F24'
    return ""


def clash(own: Mapping[str, str]) -> tuple[str, str] | None:
    """An action of `own` whose key another one has in the same place, and that in words."""
    keymap = _of(own)
    for name in own:
        for other, keys in keymap.items():
            both = set(keymap[name]) & set(keys)
            if other != name and both and _meet(ACTIONS[name].where, ACTIONS[other].where):
                return name, f"keys.{name}: {shown(min(both))} is the key of {other}; take another one, or give {other} another one"
    return None


def _of(own: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(named(key) for key in own.get(name, action.keys).split(",")) for name, action in ACTIONS.items()}


def _types(key: str) -> bool:
    base = key.removeprefix("shift+")
    return len(base) == 1 or base == "space" or base in _PUNCTUATION


def _meet(one: str, other: str) -> bool:
    """Keys of both places may mean something at the same time."""
    return {one, other} not in ({INPUT, TRACE}, {INPUT, STEERING})


class Keymap:
    """The keys as they hold: the table's, with `own` ones (action -> keys) in their place. Raises SettingError."""

    def __init__(self, own: Mapping[str, str] | None = None) -> None:
        self.take(own or {})

    def take(self, own: Mapping[str, str]) -> None:
        """Other keys from now on. Raises SettingError, and all is as it was."""
        problem = next(filter(None, (key_problem(*each) for each in own.items())), "") or (clash(own) or ("", ""))[1]
        if problem:
            raise SettingError(problem)
        self.own = {name: ",".join(_of(own)[name]) for name in own}
        self._of = _of(own)

    def keys(self, action: str) -> tuple[str, ...]:
        return self._of[action]

    def first(self, action: str) -> str:
        """For a hint."""
        return shown(self._of[action][0])

    def shown(self, action: str) -> str:
        return ", ".join(map(shown, self._of[action]))

    def rows(self, *places: str) -> list[tuple[str, str]]:
        """For the help: keys and what they do."""
        rows: list[tuple[str, str]] = []
        for action in _TABLE:
            if action.where not in places:
                continue
            keys = self.shown(action.name)
            if action.help:
                rows.append((keys, action.help))
            else:
                before, what = rows.pop()
                rows.append((f"{before}, {keys}", what))
        return rows + [row for place in places for row in _FIXED.get(place, [])]

    def meant(self, key: str, *places: str) -> str:
        """The action of these places that a key is for; "" if it is for none."""
        name = named(key)
        return next((action.name for action in _TABLE if action.where in places and name in self._of[action.name]), "")
