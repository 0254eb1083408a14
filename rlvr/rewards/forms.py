"""Gold answers as the grader wants them: bare texts, one per accepted form."""

from collections.abc import Sequence

from rlvr.rewards.extract import last_boxed

_MATH_MARKS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))

GoldLike = str | Sequence["GoldLike"]
"""A gold answer: a text, or several accepted forms, nested as data sets have them."""


def gold_forms(gold: GoldLike) -> tuple[str, ...]:
    """The accepted forms of a gold, without boxes, math marks and stray whitespace; empty forms left out."""
    if isinstance(gold, str):
        text = _bare(gold)
        return (text,) if text else ()
    return tuple(dict.fromkeys(form for entry in gold for form in gold_forms(entry)))


def _bare(gold: str) -> str:
    boxed = last_boxed(gold)
    text = gold.strip() if boxed is None else boxed
    for left, right in _MATH_MARKS:
        inner = text[len(left) : len(text) - len(right)]
        # `$5$ or $6$` is not one formula in marks.
        if len(text) > len(left) + len(right) and text == left + inner + right and left not in inner:
            return inner.strip()
    return text
