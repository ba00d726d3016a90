"""The task family over decimals: which of two is larger, or are they equal."""

from __future__ import annotations

import random

from problem import Problem, opening, phrase, verdict

_COMPARE_WORDINGS = [
    "Which is larger, {a} or {b}?", "Which is bigger, {a} or {b}?", "Which is greater: {a} or {b}?", "Is {a} or {b} larger?", "Is {a} bigger than {b}?",
    "What is larger, {a} or {b}?", "What's bigger: {a} or {b}?", "Which number is larger, {a} or {b}?", "Which of {a} and {b} is larger?",
    "Which of these is bigger: {a}, {b}?", "{a} or {b}, which is larger?", "{a} vs {b}, which is bigger?", "Compare {a} and {b}", "Compare {a} with {b}",
    "Is {a} greater than {b}?", "Which one is bigger, {a} or {b}?", "Which decimal is larger, {a} or {b}?", "Find the larger of {a} and {b}",
    "Which is the larger number: {a} or {b}?", "Which is more, {a} or {b}?", "What is the larger of {a} and {b}?", "{a} or {b}: which is greater?",
    "Tell me which is larger, {a} or {b}", "Which of the two is larger, {a} or {b}?", "Between {a} and {b}, which is larger?", "Is {a} larger than {b}?",
]  # fmt: skip
_EQUAL_WORDINGS = [
    "Are {a} and {b} equal?", "Is {a} equal to {b}?", "Are {a} and {b} the same?", "Is {a} the same as {b}?", "Does {a} equal {b}?",
    "Are {a} and {b} the same number?", "Is {a} = {b}?", "{a} = {b}?", "Are {a} and {b} equal or is one larger?", "Do {a} and {b} have the same value?",
]  # fmt: skip
_DECIMALS = ["tenths", "hundredths", "thousandths"]


def decimal(rng: random.Random) -> str:
    whole = rng.choice([rng.randint(0, 9), rng.randint(0, 99), rng.randint(0, 999)])
    return f"{whole}." + "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 3)))


def _related(rng: random.Random, a: str) -> str:
    """A second decimal that makes the comparison with `a` interesting."""
    whole, frac = a.split(".")
    kind = rng.random()
    if kind < 0.25:  # the same value, written with more or fewer zeros
        b = frac.rstrip("0") or "0"
        return f"{whole}.{b}" + "0" * rng.randint(0, 3 - len(b))
    if kind < 0.6:  # the same whole part
        return f"{whole}." + "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 3)))
    if kind < 0.75:  # one digit changed
        digits = list(frac)
        digits[rng.randrange(len(digits))] = rng.choice("0123456789")
        return f"{whole}.{''.join(digits)}" + rng.choice(["", "", rng.choice("0123456789")]) * (len(digits) < 3)
    if kind < 0.85:  # a whole part of the same length
        low = 10 ** (len(whole) - 1) if len(whole) > 1 else 0
        return f"{rng.randint(low, 10 ** len(whole) - 1)}.{decimal(rng).split('.')[1]}"
    return decimal(rng)


def digits_until_different(x: str, y: str, names: list[str] | None = None) -> tuple[str, str]:
    """Compare two equally long digit strings; the steps in words and '<', '=' or '>'."""
    steps, sign = [], "="
    for i, (c, d) in enumerate(zip(x, y, strict=True)):
        sign = "=" if c == d else "<" if c < d else ">"
        steps.append((f"{names[i]}: " if names else "") + f"{c} {sign} {d}")
        if sign != "=":
            break
    return ", ".join(steps), sign


def compare(rng: random.Random) -> Problem:
    a = decimal(rng)
    b = _related(rng, a)
    if rng.random() < 0.5:
        a, b = b, a
    asks_equal = rng.random() < 0.2
    question = phrase(rng, _EQUAL_WORDINGS if asks_equal else _COMPARE_WORDINGS, a=a, b=b)
    (whole_a, frac_a), (whole_b, frac_b) = a.split("."), b.split(".")
    larger = "equal" if float(a) == float(b) else a if float(a) > float(b) else b
    text, guess = opening(rng, f"I compare {a} and {b}.", rng.choice([a, b, larger]))
    text += f"Whole parts: {whole_a} and {whole_b}, "
    if len(whole_a) != len(whole_b):
        longer = max(whole_a, whole_b, key=len)
        text += f"{len(whole_a)} and {len(whole_b)} digits, so {longer} is larger."
    else:
        steps, sign = digits_until_different(whole_a, whole_b)
        text += f"{steps}."
        if sign == "=":
            n = max(len(frac_a), len(frac_b))
            pad_a, pad_b = frac_a.ljust(n, "0"), frac_b.ljust(n, "0")
            text += " The same.\n"
            text += f"Decimals with {n} place{'s' * (n > 1)}: {pad_a} and {pad_b}.\n"
            steps, sign = digits_until_different(pad_a, pad_b, _DECIMALS)
            text += f"{steps}."
            if sign != "=" and len(frac_a) != len(frac_b) and (int(frac_a) > int(frac_b)) != (sign == ">"):
                text += f"\nWait, {max(frac_a, frac_b, key=int)} looks larger than {min(frac_a, frac_b, key=int)}, but the places count, not the length."
    text += f"\nSo {a} and {b} are equal." if larger == "equal" else f"\nSo {larger} is larger."
    text += verdict(guess, larger)
    if larger == "equal":
        answer = f"{a} and {b} are **equal**."
    else:
        answer = f"No, **{larger}** is larger." if asks_equal else f"**{larger}** is larger."
    return Problem("compare", "/".join(sorted([a, b])), question, text, answer, larger)
