"""Task families over the letters of words: count one (`letters`), or pick the words that contain it (`filter_words`)."""

from __future__ import annotations

import random
import re

from problem import END, SLIP, Problem, opening, phrase, verdict
from words import LETTERS, STATES, word

_LETTER_WORDINGS = [
    "How many {l}'s are in {w}?", "How many {l}'s are in the word {w}?", "How many {l}s are there in {w}?",
    "How many {l}'s in {w}?", "How often does {l} occur in {w}?", "How many times does {l} appear in {w}?",
    "How many times does the letter {l} appear in {w}?", "How many times does the letter {l} occur in the word {w}?",
    "Count the {l}'s in {w}", "Count the letter {l} in {w}", "Count how many {l}'s {w} has", "In {w}, how many {l}'s are there?",
    "What is the number of {l}'s in {w}?", "How many letters {l} does {w} contain?", "How many {l} are in {w}?",
    "How many of the letter {l} are in {w}?", "How often is the letter {l} used in {w}?", "{w}: how many {l}'s?",
    "How many {l}'s does {w} have?", "How many {l}'s does the word {w} contain?", "Number of {l} in {w}?",
    "How often does the letter {l} come up in the word {w}?", "Tell me how many {l}'s there are in {w}",
    "Can you count the {l}'s in {w}?", "I want to know how many {l}'s {w} contains", "How many {l} letters are in {w}?",
    "Count {l} in {w}", "Find how often {l} occurs in {w}", "What's the count of the letter {l} in {w}?",
]  # fmt: skip


def letters(rng: random.Random) -> Problem:
    w = word(rng)
    letter = rng.choice(w) if rng.random() < 0.8 else rng.choice(LETTERS)
    count = w.count(letter)
    shown_letter = rng.choice([letter] * 5 + [f"'{letter}'", f'"{letter}"', letter.upper()])
    shown_word = rng.choice([w] * 6 + [f"'{w}'", f'"{w}"', w.capitalize()])
    question = phrase(rng, _LETTER_WORDINGS, l=shown_letter, w=shown_word)
    return _letters(rng, question, w, letter, count)


def _letters(rng: random.Random, question: str, w: str, letter: str, count: int) -> Problem:
    guess = str(max(0, count + rng.choice([0, 0, 0, 1, -1])))
    text, guess = opening(rng, f"I count {letter} in {w}.", guess)
    seen, steps = 0, []
    for i, c in enumerate(w, 1):
        if c == letter:
            seen += 1
            steps.append(f"{i} {c} ({seen})")
        elif rng.random() < 0.004:
            steps.append(f"{i} {c} {SLIP}({seen + 1}){END} wait, {c} is not {letter}, still {seen}")
        else:
            steps.append(f"{i} {c}")
    text += ", ".join(steps) + "."
    places = [str(i) for i, c in enumerate(w, 1) if c == letter]
    text += (
        f"\nCheck: {letter} is at {', '.join(places)}. That makes {count}." if places else f"\nCheck: there is no {letter}. That makes 0."
    )
    text += verdict(guess, str(count))
    answer = f"There is **1** {letter} in {w}." if count == 1 else f"There are **{count}** {letter}'s in {w}."
    return Problem("letters", f"{w}/{letter}", question, text, answer, str(count))


_FOLLOW_UPS = [
    "And in {w}?",
    "What about {w}?",
    "and {w}?",
    "How about in {w}?",
    "And how many in {w}?",
    "The same for {w}?",
    "now {w}",
    "and in the word {w}?",
]


def follow_up(rng: random.Random, earlier: Problem) -> Problem:
    """The same letter in another word, asked with reference to the `earlier` letters problem."""
    letter = earlier.key[-1]
    while True:
        w = word(rng)
        problem = _letters(rng, phrase(rng, _FOLLOW_UPS, w=w), w, letter, w.count(letter))
        if not problem.held_out:
            return problem


_FILTER_WORDINGS = [
    "Which of these words contain the letter {l}: {ws}?", "Which of these contain {l}: {ws}?", "Which words contain the letter {l}: {ws}?",
    "Which of the following have the letter {l}: {ws}?", "Which of {ws} contain the letter {l}?", "Which of {ws} have an {l} in them?",
    "From {ws}, pick the words with the letter {l}", "Pick the words with {l}: {ws}", "List the words that contain {l}: {ws}", "{ws}: which contain {l}?",
    "{ws}. Which of these contain the letter {l}?", "Find the words containing the letter {l} in: {ws}", "Filter the words with the letter {l}: {ws}",
    "Which ones contain the letter {l}: {ws}?", "Which of these names have the letter {l}: {ws}?", "Among {ws}, which have the letter {l}?",
    "Which of these words have the letter {l} in them: {ws}?", "Name the words that have the letter {l}: {ws}", "Show me the words with an {l}: {ws}",
    "Of {ws}, which contain the letter {l}?", "Tell me which of these contain the letter {l}: {ws}", "Give me those that contain {l}: {ws}",
]  # fmt: skip
_STATE_WORDINGS = [
    "Which of these states contain the letter {l}: {ws}?", "Which of these US states have the letter {l}: {ws}?", "Which states have an {l} in the name: {ws}?",
    "Which of the states {ws} contain the letter {l}?", "From these states, pick those with the letter {l}: {ws}", "US states with the letter {l} among {ws}?",
]  # fmt: skip


def filter_words(rng: random.Random) -> Problem:
    n = rng.randint(3, 8)
    kind = rng.random()
    if kind < 0.35:
        words = rng.sample(STATES, n)
    elif kind < 0.5:
        words = [rng.choice(STATES) if rng.random() < 0.5 else word(rng) for _ in range(n)]
    else:
        words = [word(rng, 3, 12) for _ in range(n)]
        if rng.random() < 0.25:
            words = [w.capitalize() for w in words]
    words = list(dict.fromkeys(words))
    letter = rng.choice(rng.choice(words).lower().replace(" ", "")) if rng.random() < 0.85 else rng.choice(LETTERS)
    joined = rng.choice(
        [", ".join(words)] * 4
        + [
            ", ".join(words[:-1]) + " and " + words[-1],
            ", ".join(words[:-1]) + " or " + words[-1],
            ", ".join(words[:-1]) + ", " + words[-1],
        ]
    )
    wordings = _FILTER_WORDINGS + _STATE_WORDINGS * 4 if all(w in STATES for w in words) else _FILTER_WORDINGS
    question = phrase(rng, wordings, l=rng.choice([letter] * 5 + [f"'{letter}'", f'"{letter}"', letter.upper()]), ws=joined)
    as_typed = [_as_typed(question, w) for w in words]
    text, _ = opening(rng, f"I look for {letter} in each word.")
    hits, lines = [], []
    for i, w in enumerate(as_typed, 1):
        spelled = w.lower().replace(" ", "_")
        found = letter in spelled
        if found:
            hits.append(w)
            lines.append(f"{i} {w}")  # the number of the line first: what to copy is found by it
            spelled = spelled[: spelled.index(letter) + 1]
        text += f"{i} {w}: {' '.join(spelled)}, " + (f"yes ({len(hits)})\n" if found else "no\n")
    result = ", ".join(hits) if hits else "none"
    text += f"So {len(hits)} of {len(words)}: {', '.join(lines) or 'none'}."
    key = ",".join(sorted(w.lower() for w in words)) + "/" + letter
    answer = f"The letter {letter} is in **{result}**" + ("." if hits else " of them.")
    return Problem("filter", key, question, text, answer, result)


def _as_typed(question: str, w: str) -> str:
    """`w` in the case in which the question shows it (the wording may have been changed as a whole)."""
    found = re.search(rf"(?<!\w){re.escape(w)}(?!\w)", question, re.IGNORECASE)
    assert found is not None
    return found[0]
