r"""Gold answers out of the forms data sets keep them in: plain, after `####`, in the last `\boxed{}`, or several."""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rlvr.data.base import Gold
from rlvr.data.columns import is_empty
from rlvr.errors import UserError
from rlvr.rewards.extract import last_boxed

STYLES = {"plain": "as it stands", "marked": "after the last ####", "boxed": "in the last \\boxed{}"}
"""How a gold is taken from its cell, in words."""

LONGEST_ANSWER = 300
"""Characters; a column most of whose cells are longer holds worked solutions, not answers."""

_MARK = "####"
_UNBRACED = re.compile(r"\\boxed\s+([^${}\\][^$]*?)\s*(?:\$|$)")  # MATH has some `\boxed 2$`


def accepted_forms(value: Any, where: str) -> list[str]:
    """The texts in a cell: a text or a number is one; a list, nested or as JSON text (`["a", "b"]`), several.

    Raises:
        UserError: for a mapping or a bool, which are no answers.
    """
    if is_empty(value):
        return []
    if isinstance(value, list | tuple):
        return [form for entry in value for form in accepted_forms(entry, where)]
    if isinstance(value, str):
        text = value.strip()
        return [text] if not text.startswith('["') else _json_texts(text)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise UserError(
            f"{where} is a {type(value).__name__}; expected a text, a number or a list of them: set data.gold_column "
            "to another column, or to a dotted path such as reward_model.ground_truth"
        )
    return [str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)]


def _json_texts(text: str) -> list[str]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError:
        return [text]
    texts = [entry.strip() for entry in entries if isinstance(entry, str) and entry.strip()]
    return texts if len(texts) == len(entries) else [text]


def _boxed(text: str) -> str | None:
    text = text.replace("\\fbox", "\\boxed")
    found = last_boxed(text)
    if found is not None:
        return found
    unbraced = _UNBRACED.findall(text)
    return unbraced[-1] if unbraced else None


def gold_style(cells: Sequence[list[str]]) -> str:
    r"""How a column keeps its answers: `marked` or `boxed` if more than half of its cells hold `####` or `\boxed`."""
    forms = [form for cell in cells for form in cell]
    for style, has in (("marked", lambda form: _MARK in form), ("boxed", lambda form: _boxed(form) is not None)):
        if 2 * sum(has(form) for form in forms) > len(forms):
            return style
    return "plain"


def _answer(form: str, style: str) -> str:
    if style == "marked":
        marked = form.rpartition(_MARK)[2] if _MARK in form else ""
        return marked.strip().split("\n")[0].replace(",", "").strip()
    return (_boxed(form) or "") if style == "boxed" else form


def read_golds(cells: Sequence[list[str]], style: str) -> list[Gold]:
    """The gold of each cell: a text, or a tuple of several different forms; an empty text where there is none."""
    golds: list[Gold] = []
    for cell in cells:
        answers = tuple(dict.fromkeys(answer for answer in (_answer(form, style) for form in cell) if answer))
        golds.append(answers if len(answers) > 1 else "".join(answers))
    return golds


def are_solutions(cells: Sequence[list[str]], style: str) -> bool:
    """Whether a plain column holds worked solutions from which no answer can be taken."""
    return style == "plain" and 2 * sum(any(len(form) > LONGEST_ANSWER for form in cell) for cell in cells) > len(cells)
