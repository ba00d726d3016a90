"""Task families over whole numbers: add, subtract and multiply, worked in columns from the right."""

from __future__ import annotations

import random

from compare import digits_until_different
from problem import Problem, by_chance, opening, phrase, slip, verdict

PLACES = ["ones", "tens", "hundreds", "thousands", "ten-thousands", "hundred-thousands"]


def number(rng: random.Random, digits: int) -> int:
    return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)


def near(rng: random.Random, n: int) -> str:
    """A quick guess at `n`: often right, else off in one digit."""
    if rng.random() < 0.5:
        return str(n)
    return str(n + rng.choice([1, -1]) * 10 ** rng.randrange(max(1, len(str(abs(n))))))


def _digit(n: int, place: int) -> int:
    return n // 10**place % 10


def add_columns(rng: random.Random, a: int, b: int) -> str:
    """Column addition from the right, the partial result written out after each column."""
    lines, carry, done = [], 0, ""
    for i in range(max(len(str(a)), len(str(b)))):
        x, y = _digit(a, i), _digit(b, i)
        total = x + y + carry
        done = str(total % 10) + done
        terms = f"{x} + {y}" + (f" + {carry}" if i else "")
        shown = slip(rng, str(total), str(total + rng.choice([1, -1])) if total else "1")
        carry = total // 10
        lines.append(f"{PLACES[i]}: {terms} = {shown}, carry {carry}, so far {done}")
    if carry:
        lines.append(f"last carry: {carry}{done}")
    return "\n".join(lines)


def sub_columns(rng: random.Random, a: int, b: int) -> str:
    """Column subtraction with borrowing, a >= b >= 0."""
    lines, borrow, done = [], 0, ""
    for i in range(len(str(a))):
        x, y = _digit(a, i), _digit(b, i)
        diff = x - y - borrow
        terms = f"{x} - {y}" + (f" - {borrow}" if i else "")
        shown = slip(rng, str(diff), str(diff + rng.choice([1, -1])))
        borrow = int(diff < 0)
        done = str(diff % 10) + done
        lines.append(f"{PLACES[i]}: {terms} = {shown}, borrow {borrow}, so far {done}")
    if done != str(a - b):
        lines.append(f"without zeros in front: {a - b}")
    return "\n".join(lines)


_ADD_WORDINGS = [
    "What is {a} + {b}?", "What's {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "{a}+{b}=?", "What is {a} plus {b}?", "{a} plus {b}?",
    "Add {a} and {b}", "Add {a} to {b}", "Calculate {a} + {b}", "Compute {a} + {b}", "What is the sum of {a} and {b}?", "Sum of {a} and {b}?",
    "How much is {a} + {b}?", "How much is {a} plus {b}?", "Can you add {a} and {b}?", "I need {a} + {b}", "What do you get when you add {a} and {b}?",
    "Work out {a} + {b}", "Solve {a} + {b}", "Find {a} + {b}", "What does {a} + {b} equal?", "What do {a} and {b} add up to?", "{a} and {b} together?",
    "I have {a} and get {b} more. How many do I have?", "Evaluate {a} + {b}", "How much are {a} and {b} together?", "Total of {a} and {b}?",
]  # fmt: skip
_SUB_WORDINGS = [
    "What is {a} - {b}?", "What's {a} - {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} =", "{a}-{b}=?", "What is {a} minus {b}?", "{a} minus {b}?",
    "Subtract {b} from {a}", "Take {b} from {a}", "Take {b} away from {a}", "Calculate {a} - {b}", "Compute {a} - {b}", "How much is {a} - {b}?",
    "How much is {a} minus {b}?", "Can you subtract {b} from {a}?", "I need {a} - {b}", "Work out {a} - {b}", "Solve {a} - {b}", "Find {a} - {b}",
    "What does {a} - {b} equal?", "What is left when you take {b} from {a}?", "What do you get when you subtract {b} from {a}?", "Evaluate {a} - {b}",
    "What is {a} less {b}?", "What is {b} subtracted from {a}?", "What is {a} take away {b}?", "I have {a} and spend {b}. What is left?",
]  # fmt: skip
_MUL_WORDINGS = [
    "What is {a} x {b}?", "What's {a} * {b}?", "{a} x {b}", "{a}*{b}", "{a} * {b} =", "{a}x{b}=?", "What is {a} times {b}?", "{a} times {b}?",
    "Multiply {a} by {b}", "Multiply {a} and {b}", "Calculate {a} * {b}", "Compute {a} x {b}", "How much is {a} × {b}?", "How much is {a} times {b}?",
    "Can you multiply {a} by {b}?", "I need {a} * {b}", "Work out {a} x {b}", "Solve {a} * {b}", "Find {a} × {b}", "What does {a} * {b} equal?",
    "What is the product of {a} and {b}?", "Product of {a} and {b}?", "What do you get when you multiply {a} by {b}?", "Evaluate {a} * {b}",
    "What is {a} multiplied by {b}?", "{a} multiplied by {b}", "{a} × {b}", "{b} boxes with {a} apples each. How many apples?",
]  # fmt: skip


def _checked_last_digit(rng: random.Random, a: int, b: int, op: str, result: int) -> str:
    """What comes before the result: now and then a check of its last digit."""
    so = "\n" + by_chance("So")
    if rng.random() >= 0.3:
        return so
    x, y = a % 10, b % 10
    value = x + y if op == "+" else x * y
    return "\n" + by_chance("Check") + f" the last digit: {x} {op} {y} = {value}, and {result} ends in {result % 10}. Good.\nSo"


def add(rng: random.Random) -> Problem:
    a, b = number(rng, rng.randint(1, 5)), number(rng, rng.randint(1, 5))
    question = phrase(rng, _ADD_WORDINGS, a=str(a), b=str(b))
    result = a + b
    text, guess = opening(rng, f"I need {a} + {b}.", near(rng, result))
    text += add_columns(rng, a, b) + _checked_last_digit(rng, a, b, "+", result)
    text += f" {a} + {b} = {result}." + verdict(guess, str(result))
    return Problem("add", f"{a}+{b}", question, text, f"{a} + {b} = **{result}**", str(result))


def _compared(a: int, b: int) -> str:
    """Lengths, then digits, then which of the two is larger: said before, it would be a guess."""
    s, t = str(a), str(b)
    text = f"{a} has {len(s)} digit{'s' * (len(s) > 1)} and {b} has {len(t)}"
    if len(s) == len(t):
        steps, _ = digits_until_different(s, t)
        text += f". Digit by digit: {steps}"
    return f"{text}, all the same." if a == b else f"{text}, so {a} is {'larger' if a > b else 'smaller'}."


def subtract(rng: random.Random) -> Problem:
    d = rng.randint(1, 5)
    e = d if rng.random() < 0.5 else rng.randint(1, 5)
    a, b = number(rng, d), number(rng, e)
    if a < b and rng.random() < 0.4:
        a, b = b, a
    if rng.random() < 0.08:  # otherwise only met among single digits
        b = a
    question = phrase(rng, _SUB_WORDINGS, a=str(a), b=str(b))
    result = a - b
    text, guess = opening(rng, f"I need {a} - {b}.", near(rng, result))
    text += f"{_compared(a, b)} "
    if a < b:
        text += f"The result is negative, so I take {b} - {a} and put a minus in front.\n{sub_columns(rng, b, a)}"
        text += f"\n{b} - {a} = {b - a}, with the minus {result}."
    elif a == b:
        text += "Nothing is left."
    else:
        text += f"The result is positive.\n{sub_columns(rng, a, b)}"
    text += f"\nSo {a} - {b} = {result}." + verdict(guess, str(result))
    return Problem("subtract", f"{a}-{b}", question, text, f"{a} - {b} = **{result}**", str(result))


def times_digit(rng: random.Random, a: int, d: int) -> str:
    """a x one digit, digit by digit from the right."""
    lines, carry, done = [], 0, ""
    for i in range(len(str(a))):
        x = _digit(a, i)
        product = x * d
        total = product + carry
        shown = slip(rng, str(product), str(product + rng.choice([d, -d, 1])) if product else "1")
        plus = f", + {carry} = {total}" if i else ""
        carry = total // 10
        done = str(total % 10) + done
        lines.append(f"{PLACES[i]}: {x} x {d} = {shown}{plus}, carry {carry}, so far {done}")
    if carry:
        lines.append(f"last carry: {carry}{done}")
    return "\n".join(lines)


def multiply(rng: random.Random) -> Problem:
    a, b = number(rng, rng.choice([1, 2, 2, 3, 3, 3])), number(rng, rng.choice([1, 1, 2, 2, 2]))
    first, second = (a, b) if rng.random() < 0.8 else (b, a)
    question = phrase(rng, _MUL_WORDINGS, a=str(first), b=str(second))
    result = a * b
    text, guess = opening(rng, f"I need {first} x {second}.", near(rng, result))
    if len(str(first)) < len(str(second)):
        first, second = second, first
        text += f"The same as {first} x {second}.\n"
    tens, ones = divmod(second, 10)
    if first == 0 or second == 0:
        text += "Anything times 0 is 0."
    elif tens == 0:
        text += times_digit(rng, first, ones)
    else:
        part, big = first * ones, first * tens
        if ones:
            text += f"{second} is {tens}0 + {ones}.\n{first} x {ones}:\n" + times_digit(rng, first, ones) + "\n"
        text += f"{first} x {tens}:\n" + times_digit(rng, first, tens) + f"\nwith a zero: {big}0"
        if ones:
            text += f"\nNow {part} + {big}0:\n" + add_columns(rng, part, big * 10)
    text += _checked_last_digit(rng, first, second, "x", result)
    text += f" {first} x {second} = {result}." + verdict(guess, str(result))
    return Problem("multiply", f"{max(a, b)}*{min(a, b)}", question, text, f"{first} x {second} = **{result}**", str(result))
