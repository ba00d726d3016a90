"""Settings: what a person can set, in one table - the fields below - that the file, the flags, the checks and the help are made from.

A key is `table.name`, as in the file. What a field may be stands in its metadata, as a Row; `rows()` lists them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.dispatch import Asked
    from backends.memory import CacheType
    from localr1.turn import OnLoop, Rules, Thinking, WhenFull

Value = bool | int | float | str
Values = Mapping[str, Value | None]  # key -> value; None unsets what may be unset

_ENDLESS = float("inf")


class SettingError(Exception):
    """A value that a setting cannot have. The message names the key, the value and what is needed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `default` None: unset, and may be. `flag` "": none of its own, or made by hand. `per_model`: may stand in
    [models."NAME"], too. `screen`: for the chat alone. `at_start`: a chat that goes on already does not look again."""

    key: str
    kind: type[Value]
    default: Value | None
    help: str
    flag: str = ""
    unset: str = ""  # what it is when unset, in words
    low: float = 0
    high: float = _ENDLESS
    choices: tuple[str, ...] = ()
    per_model: bool = False
    screen: bool = False
    at_start: bool = False

    @property
    def needed(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return "a text"
        number = "a whole number" if self.kind is int else "a number"
        return f"{number} of {self.low:g} or more" if self.high == _ENDLESS else f"{number} from {self.low:g} to {self.high:.10g}"

    def check(self, value: object) -> Value:
        """The value as the settings hold it. Raises SettingError."""
        fits = type(value) is self.kind or (self.kind is float and type(value) is int)
        if fits and self.kind in (int, float):
            fits = self.low <= value <= self.high and value != _ENDLESS  # type: ignore[operator]
        if not fits or (self.choices and value not in self.choices):
            raise SettingError(f"{self.key} is {_shown(value)}, {self.needed} is needed")
        return self.kind(value)  # type: ignore[call-overload, arg-type]

    def parse(self, text: str) -> Value | None:
        """As `check`, of what a person typed; "none" unsets."""
        word = text.strip().lower()
        if word == "none" and self.default is None:
            return None
        if self.kind is bool:
            return self.check(_WORDS.get(word, text))
        if self.kind is str:
            return self.check(word if self.choices else text)
        try:
            return self.check(self.kind(text))
        except ValueError:
            raise SettingError(f"{self.key} is {_shown(text)}, {self.needed} is needed") from None


_WORDS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _row(default: Value | None, help: str, flag: str = "", kind: type[Value] | None = None, **more: Any) -> Any:
    kind = type(default) if kind is None and default is not None else kind
    return field(default=default, metadata={"row": dict(kind=kind, default=default, help=help, flag=flag, **more)})


@dataclass(frozen=True, slots=True)
class ModelSettings:
    name: str = _row("", "the model to open (empty: the one used last, else the best here)", at_start=True)
    backend: Asked = _row("auto", "engine", "--backend", choices=("auto", "gguf", "mlx", "reference"))
    context: int | None = _row(
        None, "tokens of context", "--context", int, unset="the model's, at most 32,768", low=1, per_model=True
    )  # fmt: skip
    kv: CacheType = _row("f16", "type of keys and values in llama.cpp", "--kv", choices=("f16", "q8_0", "q4_0"), per_model=True)


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """The defaults are DeepSeek's advice for R1."""

    temperature: float = _row(0.6, "0 takes the likeliest token", "--temperature", high=10, per_model=True)
    top_p: float = _row(0.95, "the likeliest tokens that make up this share are drawn from", "--top-p", high=1, per_model=True)
    min_p: float = _row(0.0, "tokens below this share of the likeliest one's are not drawn", "--min-p", high=1, per_model=True)
    max_tokens: int | None = _row(
        None, "new tokens, thought and answer", "--max-tokens", int, unset="up to the context", low=1, per_model=True
    )  # fmt: skip
    seed: int | None = _row(
        None, "makes a run repeatable", "--seed", int, unset="another one each time", high=2**32 - 2, per_model=True
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ThinkingSettings:
    mode: Thinking = _row(
        "auto", "think as the model likes, not at all, or always", "--thinking", choices=("auto", "off", "force"), per_model=True
    )  # fmt: skip
    budget: int | None = _row(
        None, "thought tokens after which the answer is asked for", "--think-budget", int, unset="no budget", per_model=True
    )  # fmt: skip
    on_loop: OnLoop = _row(
        "answer", "when the model repeats itself: close the thought and answer, say so, do not look", "--on-loop",
        choices=("answer", "warn", "ignore"), per_model=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChatSettings:
    history: bool = _row(True, "keep conversations and their traces", "--history", at_start=True)
    system: str = _row("", "system text, for every conversation", "--system", per_model=True)
    system_in_question: bool = _row(
        True, "system text goes into the first question, as DeepSeek advises for R1; false: a system message", "--system-in-question",
        per_model=True,
    )  # fmt: skip
    when_full: WhenFull = _row(
        "ask", "when the context is full: ask, stop, drop the oldest turns, raise the context if memory allows", "--when-full",
        choices=("ask", "stop", "drop", "raise"), screen=True,
    )  # fmt: skip
    prepare: bool = _row(True, "compute the next prompt's beginning while nothing else is done", "--prepare", screen=True)
    attach_pasted: int = _row(
        2000, "characters from which pasted text becomes an attachment; 0: never", "--attach-pasted", screen=True
    )  # fmt: skip
    editor: str = _row("", "command for /edit and long questions (empty: $VISUAL, then $EDITOR)", "--editor", screen=True)


@dataclass(frozen=True, slots=True)
class LookSettings:
    theme: str = _row(
        "terminal", "colours", "--theme", choices=("terminal", "dark", "light", "high-contrast", "no-colour"), screen=True
    )  # fmt: skip
    latex: bool = _row(True, "show formulas as readable text", "--latex", screen=True)
    mouse: bool = _row(True, "clicks and the wheel go to the chat, not to the terminal", "--mouse", screen=True, at_start=True)


@dataclass(frozen=True, slots=True)
class NotifySettings:
    when: str = _row(
        "off", "tell when a long reply is done and the window is not in front", "--notify", choices=("off", "bell", "desktop"), screen=True
    )  # fmt: skip
    after_s: int = _row(20, "seconds from which a reply is long", "--notify-after", high=86_400, screen=True)


@dataclass(frozen=True, slots=True)
class SavingsSettings:
    show: bool = _row(False, "tokens made here, and what they would have cost elsewhere", "--savings", screen=True)
    price: float = _row(10.0, "price per million tokens", "--price", high=1e6, screen=True)
    currency: str = _row("$", "what stands before the price", "--currency", screen=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """`keys`: action -> keys, "ctrl+x" or several with commas. (What one model has for itself is a matter of settings_layers.)"""

    model: ModelSettings = field(default_factory=ModelSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    thinking: ThinkingSettings = field(default_factory=ThinkingSettings)
    chat: ChatSettings = field(default_factory=ChatSettings)
    look: LookSettings = field(default_factory=LookSettings)
    keys: Mapping[str, str] = field(default_factory=dict)
    notify: NotifySettings = field(default_factory=NotifySettings)
    savings: SavingsSettings = field(default_factory=SavingsSettings)

    def __getitem__(self, key: str) -> Value | None:
        """By its key; of `keys.ACTION` None where that has its own keys."""
        table, _, name = key.partition(".")
        if table == "keys":
            return self.keys.get(name)
        value: Value | None = getattr(getattr(self, table), name)
        return value

    def changed(self, values: Values) -> Settings:
        """With these values, which were checked before."""
        tables: dict[str, dict[str, Value | None]] = {}
        for key, value in values.items():
            table, _, name = key.partition(".")
            tables.setdefault(table, {})[name] = value
        keys = {**self.keys, **tables.pop("keys", {})}
        parts: dict[str, Any] = {table: replace(getattr(self, table), **names) for table, names in tables.items()}
        return replace(self, **parts, keys={action: str(key) for action, key in keys.items() if key is not None})

    def rules(self) -> Rules:
        """What a turn goes by."""
        from backends.base import Sampling
        from localr1.turn import Rules

        sampling = Sampling(**{each.name: getattr(self.sampling, each.name) for each in fields(self.sampling)})
        thinking, chat = self.thinking, self.chat
        return Rules(
            sampling, thinking.budget, thinking.mode, thinking.on_loop, chat.system, chat.system_in_question, chat.when_full
        )  # fmt: skip


@cache
def rows() -> dict[str, Row]:
    """Every setting by its key, in the order of the file. (Not [keys], whose names are those of actions.)"""
    return {row.key: row for row in _rows()}


def _rows() -> Iterator[Row]:
    for table in fields(Settings):
        if table.name != "keys":
            for each in fields(table.default_factory):  # type: ignore[arg-type]
                yield Row(key=f"{table.name}.{each.name}", **each.metadata["row"])


def key_problem(action: str, keys: str) -> str:
    """Why these keys cannot be given to this action; "" if they can."""
    from localr1 import keys as table

    return table.key_problem(action, keys)


def advice(sampling: SamplingSettings) -> str:
    """What DeepSeek advises for R1 and these are not; "" if they are."""
    if 0.5 <= sampling.temperature <= 0.7:
        return ""
    return f"temperature {sampling.temperature:g}: DeepSeek advises 0.5 to 0.7 for R1 models"
