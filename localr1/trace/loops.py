"""LoopGuard: sees on token ids, while a thought streams, that the model repeats itself and will go on so."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PERIOD = 1024  # tokens: a loop of a few long paragraphs
_GRAM = 4  # tokens that come again make a period worth following
_ID_BITS = 20  # no vocabulary has a million tokens; where one has, grams that collide cost time, not truth
_GRAM_MASK = (1 << _GRAM * _ID_BITS) - 1
_FOLLOWED = 16  # periods followed at a time
RICH = 24  # different tokens in a period that make it prose, rather than a row, a table or a line of code

# A near-repetition, say a counter in a long sentence: at most one token in so many differs from the one a period before, the
# period is richer than a song's verse in bytes (31, "99 bottles"), and so many times the tokens are needed.
_TOKENS_PER_MISS, _NEAR_RICH, _NEAR = 16, 33, 3


def needed(period: int, rich: bool = False) -> int:
    """How many tokens in a row must equal those one period before; `rich`: there are RICH different ones in the period.

    A model that has repeated a thing 11 times goes on for ever. People's material does not: a row of 120 signs, 64 bits with
    blanks between, a table's rule, a 10 x 10 matrix of zeros, some equal lines of code all stay below, even where a token is a
    byte as in the bundled model. A period of many different tokens is none of these but prose, and six times are enough. A paragraph
    needs three or four (it is no accident any more), never so few that a calculation done again to check it, or a refrain, would do.
    """
    return max(100, min(5 * period, 180 + 2 * period)) if rich else max(200, min(10 * period, 360 + 2 * period))


@dataclass(frozen=True, slots=True)
class Loop:
    """`period` tokens that came `repeats` times, the last time perhaps in part; `tokens` since the loop began."""

    period: int
    repeats: int
    tokens: int


@dataclass(slots=True)
class _Run:
    """How far the tokens have equalled those one period before: `exact` without a miss, `near` with `misses` among them."""

    exact: int
    near: int
    misses: int = 0
    told: bool = False


class LoopGuard:
    """Feed it a thought's tokens. Memory is bounded: some thousand ids.

    A period is followed from the second time that some tokens occur, for as long as each token equals the one a period before (or
    all but a few do: a counter in a long sentence). Sure of it after `needed(period)` such tokens.
    """

    def __init__(self) -> None:
        self._ids: list[int] = []  # the last MAX_PERIOD at least, twice as many at most
        self._count = 0
        self._gram = 0  # the last tokens as one number
        self._last: dict[int, int] = {}  # gram -> where it ended last
        self._older: dict[int, int] = {}  # the same for those before; forgotten when _last is full
        self._runs: dict[int, _Run] = {}  # by period

    def feed(self, token_id: int) -> Loop | None:
        """The loop found, at the token at which it is first sure; None else."""
        found = self._follow(token_id) if self._runs else None
        self._ids.append(token_id)
        if len(self._ids) > 2 * MAX_PERIOD:
            del self._ids[:MAX_PERIOD]
        self._gram = (self._gram << _ID_BITS | token_id) & _GRAM_MASK
        self._count += 1
        if self._count >= _GRAM:
            self._meet()
        return found

    def _follow(self, token_id: int) -> Loop | None:
        """Does the token go on with a period that is followed?"""
        found = None
        for period, run in list(self._runs.items()):
            run.near += 1
            if self._ids[-period] == token_id:
                run.exact += 1
            else:
                run.exact = 0
                run.misses += 1
                if run.misses * _TOKENS_PER_MISS > run.near:
                    del self._runs[period]
                    continue
            if not run.told and (tokens := self._sure(period, run)):
                run.told = True
                found = Loop(period, -(-tokens // period), tokens)
        return found

    def _sure(self, period: int, run: _Run) -> int:
        """Tokens since the loop began, at the token that makes it certain; else 0."""
        if run.exact == needed(period) or (run.exact == needed(period, rich=True) and self._different(period) >= RICH):
            return period + run.exact
        if run.near == _NEAR * needed(period) and self._different(period) >= _NEAR_RICH:
            return period + run.near
        return 0

    def _different(self, period: int) -> int:
        return len(set(self._ids[-period:]))

    def _meet(self) -> None:
        """Follow the period at which the last tokens came again."""
        before = self._last.get(self._gram) or self._older.get(self._gram)
        if before is not None and (period := self._count - before) <= MAX_PERIOD and period not in self._runs:
            if len(self._runs) == _FOLLOWED:
                del self._runs[min(self._runs, key=lambda p: self._runs[p].near)]
            self._runs[period] = _Run(_GRAM, _GRAM)
        self._last[self._gram] = self._count
        if len(self._last) > MAX_PERIOD:
            self._older, self._last = self._last, {}
