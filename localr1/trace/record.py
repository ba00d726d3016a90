"""Trace: one reply as it is kept - its tokens with their times and probabilities, its text, how it was made and how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, cast

from backends.base import Sampling, Token
from localr1.trace.steps import MARKS, Step, StepCutter
from localr1.turn import Reply, ThoughtEnd, TurnEnd, Written

VERSION = 1  # of the JSON object: a key that goes, or means something else, makes it 2


_Values = TypeVar("_Values", "Made", "Ended", Sampling)


class TraceError(Exception):
    """A trace in JSON that is none, or of a later version."""


@dataclass(frozen=True, slots=True)
class Made:
    """What made a reply. `base`: the model it was distilled into; `format`: how its weights are stored."""

    model: str
    backend: str
    base: str = ""
    format: str = ""
    sampling: Sampling = Sampling()
    think_budget: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a reply ended, and what it cost. `reason`: as in End, "" while it is being written or if its process was killed."""

    reason: str = ""
    thought_end: ThoughtEnd = "unclosed"
    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class Trace:
    """`tokens`: of the reply, the closing tag among them; none where only the text is known. `started_at`: ISO 8601, UTC."""

    question: str
    thought: str
    answer: str
    made: Made
    ended: Ended
    started_at: str
    opens_thought: bool = True
    tokens: tuple[Written, ...] = ()

    @classmethod
    def of(cls, reply: Reply, made: Made, started_at: str, end: TurnEnd | None = None) -> Trace:
        """The reply as it is now; another thread may be writing it."""
        tokens = tuple(reply.tokens)
        ended = Ended()
        if end is not None:
            e = end.end
            ended = Ended(e.reason, end.thought_end, e.prompt_tokens, e.reused_tokens, e.new_tokens, e.prefill_s, e.decode_s)
        thought, answer = "".join(w.thought for w in tokens), "".join(w.answer for w in tokens)
        return cls(reply.question, thought, answer, made, ended, started_at, reply.opens_thought, tokens)

    @cached_property
    def steps(self) -> list[Step]:
        """Of the thought. Their tokens are counted among `thought_tokens`."""
        cutter, before = StepCutter(), 0.0
        for written in self.thought_tokens:
            known = None if math.isnan(written.token.logprob) else written.token.logprob
            cutter.feed(written.thought, logprob=known, seconds=max(0.0, written.at_s - before))
            before = max(before, written.at_s)
        if not self.thought_tokens and self.thought:
            cutter.feed(self.thought, is_token=False)
        cutter.finish()
        return cutter.steps

    @cached_property
    def thought_tokens(self) -> tuple[Written, ...]:
        return tuple(w for w in self.tokens if w.part == "thought")

    @cached_property
    def answer_tokens(self) -> tuple[Written, ...]:
        return tuple(w for w in self.tokens if w.part == "answer")

    def step_text(self, step: Step) -> str:
        return self.thought[step.start : step.end]

    def least_certain(self, count: int) -> list[tuple[int, Written]]:
        """The tokens of the thought that were least likely when they were sampled, be it for an earlier reply, with their places among
        `tokens`; the least likely first."""
        known = [(i, w) for i, w in enumerate(self.tokens) if w.part == "thought" and w.token.logprob <= 0 and w.thought.strip()]
        return sorted(known, key=lambda item: item[1].token.logprob)[:count]


@dataclass(frozen=True, slots=True)
class Stats:
    """Of a trace. Tokens per second: of what was sampled, over the time it took."""

    thought_tokens: int
    answer_tokens: int
    thought_s: float
    answer_s: float
    steps: int
    backtracks: int
    checks: int
    longest_step: int  # its index; -1: there is none
    longest_step_tokens: int
    tokens_per_s: float | None
    mean_logprob: float | None


def stats(trace: Trace) -> Stats:
    thought, answer = trace.thought_tokens, trace.answer_tokens
    sizes = [step.tokens or step.end - step.start for step in trace.steps]
    longest = max(range(len(sizes)), key=sizes.__getitem__, default=-1)
    thought_s = thought[-1].at_s if thought else 0.0
    known = [w.token.logprob for w in trace.tokens if not math.isnan(w.token.logprob)]
    ended = trace.ended
    return Stats(
        thought_tokens=len(thought),
        answer_tokens=len(answer),
        thought_s=thought_s,
        answer_s=max(0.0, answer[-1].at_s - thought_s) if answer else 0.0,
        steps=len(trace.steps),
        backtracks=sum(step.kind == "backtrack" for step in trace.steps),
        checks=sum(step.kind == "check" for step in trace.steps),
        longest_step=longest,
        longest_step_tokens=trace.steps[longest].tokens if longest >= 0 else 0,
        tokens_per_s=ended.new_tokens / ended.decode_s if ended.new_tokens and ended.decode_s > 0 else None,
        mean_logprob=math.fsum(known) / len(known) if known else None,
    )


# ------------------------------------------------------------------------------------------------------------- JSON


def to_json(trace: Trace) -> dict[str, Any]:
    """Keys: version; question, thought, answer (text); started_at; opens_thought (the prompt did); made: {model, backend, base, format,
    sampling, think_budget}; ended: {reason, thought_end, prompt_tokens, reused_tokens, new_tokens, prefill_s, decode_s}; steps: [{kind,
    mark, start, end (characters of the thought), first_token, tokens, seconds, mean_logprob}]; tokens: [{id, part, text (as the model
    wrote it), thought, answer (what it added to them; left out if nothing), logprob (nats, null: not sampled), at_s, given, alternatives: [[id,
    text, logprob]]}] (`given` and `alternatives` left out where there are none)."""
    return {
        "version": VERSION,
        "question": trace.question,
        "thought": trace.thought,
        "answer": trace.answer,
        "started_at": trace.started_at,
        "opens_thought": trace.opens_thought,
        "made": asdict(trace.made),
        "ended": asdict(trace.ended),
        "steps": [
            {
                "kind": s.kind, "mark": MARKS[s.kind], "start": s.start, "end": s.end, "first_token": s.first_token, "tokens": s.tokens,
                "seconds": round(s.seconds, 4), "mean_logprob": s.mean_logprob,
            }
            for s in trace.steps
        ],
        "tokens": [_token_json(written) for written in trace.tokens],
    }  # fmt: skip


def _token_json(w: Written) -> dict[str, Any]:
    found: dict[str, Any] = {"id": w.token.id, "part": w.part, "text": w.token.text}
    found |= {name: text for name, text in (("thought", w.thought), ("answer", w.answer)) if text}
    found |= {"logprob": None if math.isnan(w.token.logprob) else w.token.logprob, "at_s": round(w.at_s, 4)}
    if w.given:
        found["given"] = True
    if w.token.alternatives:
        found["alternatives"] = [list(other) for other in w.token.alternatives]
    return found


def from_json(value: object) -> Trace:
    """The trace that `to_json` has written; steps are cut again. Raises TraceError."""
    try:
        given = cast("Mapping[str, Any]", value)
        version = given["version"]
        if type(version) is not int or version > VERSION or version < 1:
            raise TraceError(f"the trace is of version {version!r}, and this program reads up to {VERSION}; update localr1")
        made, ended = dict(given["made"]), dict(given["ended"])
        sampling = dict(made.pop("sampling"))
        return Trace(
            question=_text(given["question"]),
            thought=_text(given["thought"]),
            answer=_text(given["answer"]),
            made=replace(_like(Made("", ""), made), sampling=_like(Sampling(), sampling)),
            ended=_like(Ended(), ended),
            started_at=_text(given["started_at"]),
            opens_thought=bool(given["opens_thought"]),
            tokens=tuple(_token(token) for token in given["tokens"]),
        )
    except TraceError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TraceError(f"this is no trace of localr1 ({type(error).__name__}: {error}); export it again with --to json") from None


def _token(value: Mapping[str, Any]) -> Written:
    logprob = value["logprob"]
    others: Sequence[Any] = value.get("alternatives", ())
    alternatives = tuple((int(i), _text(text), float(p)) for i, text, p in others)
    if value["part"] not in ("thought", "answer"):
        raise ValueError(f"a token is of part {value['part']!r}")
    if not math.isfinite(value["at_s"]):
        raise ValueError(f"a token came after {value['at_s']} seconds")
    token = Token(int(value["id"]), _text(value["text"]), math.nan if logprob is None else float(logprob), alternatives)
    return Written(
        token,
        value["part"],
        _text(value.get("thought", "")),
        _text(value.get("answer", "")),
        value.get("given", False),
        float(value["at_s"]),
    )


def _like(example: _Values, given: dict[str, Any]) -> _Values:
    """`example` with other values, of the same kinds; None stands for a number that is not given."""
    for name, value in given.items():
        own = getattr(example, name)
        if not isinstance(value, str if isinstance(own, str) else (int, float) if own is not None else (int, type(None))):
            raise ValueError(f"{name} is {value!r}")
    return replace(example, **given)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value
