r"""Rows to questions and golds: which columns, and in which form.

Conventions: TRL and open-r1 (`problem`, `solution` or `answer`); verl and DAPO (`prompt`, `reward_model.ground_truth`);
GSM8K (`question`, `answer` ending in `#### 42`); MATH (`problem`, `solution` with its answer in the last `\boxed{}`).
Each file of a source is looked at by itself, so files of different conventions can be read together.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlvr.data.base import Gold, Prompt
from rlvr.data.columns import Source, is_empty
from rlvr.data.golds import STYLES, accepted_forms, are_solutions, gold_style, read_golds
from rlvr.errors import UserError

PROMPT_COLUMNS = ("prompt", "problem", "question")
"""Columns that hold a question; in any case of letters."""

ANSWER_COLUMNS = ("reward_model.ground_truth", "ground_truth", "final_answer", "answer", "gold", "expected_answer")
"""Columns that hold an answer."""

SOLUTION_COLUMN = "solution"
"""A worked solution or, in TRL's own data, an answer: read where there is no column of answers."""


@dataclass(frozen=True)
class Question:
    """One row, mapped.

    Attributes:
        prompt: text or chat, before any template.
        gold: the right answer, or several accepted forms.
        key: the text that tells whether two prompts are the same.
    """

    prompt: Prompt
    gold: Gold
    key: str


class Columns(NamedTuple):
    """Where a file keeps what; `style` is a key of `STYLES`, and `gold` empty where none is read."""

    prompt: str
    gold: str
    style: str


@dataclass(frozen=True)
class Mapped:
    """A source, mapped.

    Attributes:
        questions: each prompt once, the first row of it that has a gold, in the order of the source.
        columns: where prompts and golds were found; several where files differ.
        duplicates: rows left out because their prompt had come before.
        contradictions: how many of those have another gold than the first.
        empty: rows left out because they have no prompt or no gold.
    """

    questions: list[Question]
    columns: list[Columns]
    duplicates: int
    contradictions: int
    empty: int

    def describe(self) -> str:
        """One line on columns and counts."""
        found = " and ".join(
            f"prompts from `{columns.prompt}` "
            + (f"with golds from `{columns.gold}` ({STYLES[columns.style]})" if columns.gold else "without golds")
            for columns in self.columns
        )
        repeated = f"; {self.duplicates} rows that repeat a prompt left out" if self.duplicates else ""
        differing = f", {self.contradictions} of them with another gold" if self.contradictions else ""
        empty = f"; {self.empty} rows without a prompt or a gold answer left out" if self.empty else ""
        return f"{len(self.questions)} problems, {found}{repeated}{differing}{empty}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _refuse(source: Source, problem: str) -> UserError:
    return UserError(
        f"{source.label} has the columns {_listed(source.columns())}: {problem}; expected a prompt "
        f"({_listed(PROMPT_COLUMNS)}) and a gold answer ({_listed(ANSWER_COLUMNS)} or {SOLUTION_COLUMN}); name them "
        "with data.prompt_column and data.gold_column"
    )


def _present(source: Source, known: Sequence[str]) -> list[str]:
    """The known columns that a source has, spelled as it spells them."""
    have = {name.lower(): name for name in reversed(source.columns())}
    return [have[name] for name in known if name in have]


def find_prompt_column(source: Source) -> str:
    """The one column of questions; of several, the first if they say the same in every row.

    Raises:
        UserError: if there is none, or they differ.
    """
    found = _present(source, PROMPT_COLUMNS)
    if not found:
        raise _refuse(source, "no prompt among them")
    first = source.values(found[0])
    for other in found[1:]:
        if source.values(other) != first:
            raise _refuse(source, f"{found[0]} and {other} differ, so either may be the prompt")
    return found[0]


def find_gold_column(source: Source) -> str:
    """The column of answers, else `solution`; of several columns of answers, the first if they agree in every row.

    Raises:
        UserError: if there is none, or they differ.
    """
    found = _present(source, ANSWER_COLUMNS)
    if not found:
        solution = _present(source, (SOLUTION_COLUMN,))
        if not solution:
            raise _refuse(source, "no gold answer among them")
        return solution[0]
    if len(found) > 1:
        first, _ = _golds(source, found[0])
        for other in found[1:]:
            if _golds(source, other)[0] != first:
                raise _refuse(source, f"{found[0]} and {other} differ, so either may be the gold answer")
    return found[0]


def _golds(source: Source, column: str) -> tuple[list[Gold], str]:
    """The golds of a column, empty where there is none, and how it keeps them."""
    where = f"{column} of {source.label}"
    cells = [accepted_forms(value, where) for value in source.values(column, "data.gold_column")]
    style = gold_style(cells)
    if are_solutions(cells, style):
        raise _refuse(
            source, f"{column} holds long texts without \\boxed{{}} or ####, so no answer can be taken from it"
        )
    return read_golds(cells, style), style


def _message(value: Any) -> dict[str, str] | None:
    role, content = (value.get("role"), value.get("content")) if isinstance(value, dict) else (None, None)
    return {"role": role, "content": content} if isinstance(role, str) and isinstance(content, str) else None


def _prompt(value: Any, source: Source, index: int) -> tuple[Prompt, str]:
    """A prompt and its key; an empty text for an empty cell.

    Raises:
        UserError: for what is neither a text nor a chat.
    """
    if isinstance(value, str) or is_empty(value):
        text = value.strip() if isinstance(value, str) else ""
        return text, text
    messages = [_message(entry) for entry in value] if isinstance(value, list) else [None]
    chat = [message for message in messages if message is not None]
    if len(chat) < len(messages):
        raise UserError(
            f"the prompt in {source.label}, {source.place(index)}, is a {type(value).__name__}; expected a text or a "
            "list of {role, content} messages: set data.prompt_column to another column or to a dotted path"
        )
    return chat, json.dumps(chat, sort_keys=True, ensure_ascii=False)


def _refuse_empty(source: Source, where: str, rows: list[int], what: str) -> None:
    if rows:
        raise UserError(
            f"{len(rows)} of {len(source)} rows of {source.label} have no {what} in {where} ({source.places(rows)}); "
            "expected one in each row: remove those rows, or set data.drop_empty=true to leave them out"
        )


def _read(
    source: Source, columns: tuple[str | None, str | None], search: bool, unlabelled: bool
) -> tuple[list, list[Gold], list[Columns]]:
    """Prompt cells, golds, and the columns they are from, file by file."""
    prompts: list[Any] = []
    golds: list[Gold] = []
    used: dict[Columns, None] = {}
    for file in source.split():
        prompt, gold = (None if path and search and not file.has(path) else path for path in columns)
        prompt = prompt or find_prompt_column(file)
        prompts += file.values(prompt, "data.prompt_column")
        if unlabelled:
            golds += [""] * len(file)
            used[Columns(prompt, "", "plain")] = None
            continue
        gold = gold or find_gold_column(file)
        answers, style = _golds(file, gold)
        golds += answers
        used[Columns(prompt, gold, style)] = None
    return prompts, golds, list(used)


def map_columns(
    source: Source,
    prompt_column: str | None = None,
    gold_column: str | None = None,
    *,
    drop_empty: bool = False,
    search: bool = False,
    unlabelled: bool = False,
) -> Mapped:
    """Questions and golds of a source.

    Args:
        source: the rows.
        prompt_column: where the prompt is; None finds it by the conventions.
        gold_column: where the gold answer is; None finds it.
        drop_empty: leave out rows without a prompt or a gold answer instead of refusing them.
        search: find a column by the conventions in files that do not have the one given.
        unlabelled: read no golds; every question gets an empty one.

    Raises:
        UserError: if a column is missing, ambiguous or holds nothing usable, or rows are empty.
    """
    prompts, golds, columns = _read(source, (prompt_column, gold_column), search, unlabelled)
    first: dict[str, Question] = {}
    duplicates, contradictions = 0, 0
    blank, missing = [], []
    for index, (value, gold) in enumerate(zip(prompts, golds, strict=True)):
        prompt, key = _prompt(value, source, index)
        if not key:
            blank.append(index)
        elif not gold and not unlabelled:
            missing.append(index)
        elif key in first:
            duplicates += 1
            contradictions += gold != first[key].gold
        else:
            first[key] = Question(prompt, gold, key)
    if not drop_empty or not first:
        where = sorted(
            {f"`{found.gold}`" + f" ({STYLES[found.style]})" * (found.style != "plain") for found in columns}
        )
        _refuse_empty(source, " or ".join(sorted({f"`{found.prompt}`" for found in columns})), blank, "prompt")
        _refuse_empty(source, " or ".join(where), missing, "gold answer")
    return Mapped(list(first.values()), columns, duplicates, contradictions, len(blank) + len(missing))


def strip_questions(questions: Sequence[Question], prefix: str, suffix: str) -> tuple[list[Question], dict[str, int]]:
    """Prompts without the instructions that the data wraps them in; chats stay as they are.

    Args:
        questions: mapped questions.
        prefix: text taken off the start, and blanks after it; empty for nothing.
        suffix: text taken off the end, and blanks before it.

    Returns:
        The questions, each text once; and how many prompts lack a text that was asked for, by `strip_prefix` and
        `strip_suffix`.
    """
    asked = {"strip_prefix": prefix.strip(), "strip_suffix": suffix.strip()}
    prefix, suffix = asked["strip_prefix"], asked["strip_suffix"]
    unique: dict[str, Question] = {}
    lacking = {name: 0 for name, text in asked.items() if text}
    for question in questions:
        text = question.prompt if isinstance(question.prompt, str) else None
        for name in lacking:
            has = text is not None and (text.startswith(prefix) if name == "strip_prefix" else text.endswith(suffix))
            lacking[name] += not has
        if text is not None:
            text = text.removeprefix(prefix).removesuffix(suffix).strip()
            question = Question(text, question.gold, text)
        unique.setdefault(question.key, question)
    return list(unique.values()), lacking
