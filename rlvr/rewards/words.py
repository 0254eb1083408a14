"""Answers in words: names, yes and no, small numbers, choices of a test."""

import re
from fractions import Fraction

_TEXT = re.compile(r"\\(?:text|textbf)\s*\{([^{}]*)\}")
_ONLY_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'\"!?()&-]*")
_ARTICLES = re.compile(r"^(?:the|an|a)\s+(?=\w)")
_CHOICE = re.compile(r"\(\s*([A-Za-z])\s*\)|([A-Z])(?=\s*(?:$|[).:]))\s*\)?")

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_NUMBERS = {word: value for value, word in enumerate(_ONES)} | {word: 20 + 10 * at for at, word in enumerate(_TENS)}
_PARTS = {"half": Fraction(1, 2), "one half": Fraction(1, 2), "one third": Fraction(1, 3), "two thirds": Fraction(2, 3)}
_PARTS |= {"one quarter": Fraction(1, 4), "one fourth": Fraction(1, 4), "three quarters": Fraction(3, 4)}
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
"""Words that multiply the number before them."""
_SYNONYMS = {
    **dict.fromkeys(("no solution", "no solutions", "none", "empty set", "empty", "no real solution"), "none"),
    **dict.fromkeys(("no real solutions", "there are no solutions", "does not exist", "dne", "undefined"), "none"),
    **dict.fromkeys(("infinity", "positive infinity", "plus infinity", "infinite"), "infinity"),
    **dict.fromkeys(("infinitely many", "infinitely many solutions"), "infinitely many"),
    **dict.fromkeys(("negative infinity", "minus infinity"), "-infinity"),
    **dict.fromkeys(("all real numbers", "all reals", "real numbers", "all real x"), "all real numbers"),
}


def words_of(text: str) -> str | None:
    r"""The words of an answer that is nothing but words, in lower case; None for anything else."""
    plain = _TEXT.sub(r" \1 ", text)
    plain = " ".join(plain.split()).strip(" .,!\"'")
    if plain.startswith("(") and plain.endswith(")"):
        plain = plain[1:-1]
    if not _ONLY_WORDS.fullmatch(plain):
        return None
    if "\\text" not in text and len(plain) < 3:
        return None  # letters of a formula
    plain = _ARTICLES.sub("", plain.lower())
    return _SYNONYMS.get(plain, plain)


def value_of(words: str) -> Fraction | None:
    """The number that a few words name: `twelve`, `forty-two`, `one half`, `three hundred`."""
    if words in _PARTS:
        return _PARTS[words]
    total, current = 0, 0
    for word in words.replace("-", " ").replace(" and ", " ").split():
        if word in _NUMBERS:
            current += _NUMBERS[word]
        elif word in SCALES and current:
            current *= SCALES[word]
            if word != "hundred":
                total, current = total + current, 0
        else:
            return None
    return Fraction(total + current)


def choice_of(text: str) -> tuple[str, str] | None:
    r"""The letter of a choice and what stands after it: `(A)`, `A`, `\text{(A)} 12`, `B. 7`; None for no choice."""
    plain = " ".join(_TEXT.sub(r" \1 ", text).split())
    found = _CHOICE.match(plain)
    if found is None:
        return None
    letter = (found[1] or found[2]).upper()
    rest = plain[found.end() :].lstrip(").:, ").strip()
    return (letter, rest) if letter <= "J" and not rest.startswith(tuple("+-*/^_=<>!")) else None
