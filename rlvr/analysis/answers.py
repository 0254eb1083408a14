"""Graded completions with what may give a wrong one away: entropy of their tokens, of their answers, length."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlvr.analysis.records import ROWS, RecordFile, open_record, token_rows
from rlvr.analysis.semantic import semantic_entropy
from rlvr.errors import UserError
from rlvr.rewards.extract import extract
from rlvr.rewards.policy import DEFAULT, Policy

MEAN, MOST, SEMANTIC, LENGTH = "mean token entropy", "max token entropy", "semantic entropy", "length"
PREDICTORS = (MEAN, MOST, SEMANTIC, LENGTH)

COLUMNS = ("group", "prompt_id", "prompt", "completion", "correct", "truncated")
LABELS = ("benchmark", "level")
"""Columns by which rows are told apart where a file has them."""


@dataclass(frozen=True)
class Answers:
    """n graded completions.

    Attributes:
        wrong: (n,) bool.
        problems: n labels; completions of one problem are not independent.
        draws: n labels of the problem under one policy: whose answers are compared with each other.
        labels: n texts, e.g. the benchmark.
        predictors: name -> (n,) float64, NaN where it is not known.
        notes: what to know about them, for people.
    """

    wrong: np.ndarray
    problems: np.ndarray
    draws: np.ndarray
    labels: np.ndarray
    predictors: dict[str, np.ndarray]
    notes: list[str]


def entropy_summaries(entropies: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and largest token entropy of each completion.

    Args:
        entropies: (N,) nats, completion after completion.
        lengths: (n,) tokens of each; they add up to N.

    Returns:
        (n,) means and (n,) largest, float64 nats; NaN for a completion without a token.
    """
    means, most = np.full(len(lengths), np.nan), np.full(len(lengths), np.nan)
    filled = np.flatnonzero(lengths)
    if filled.size:
        starts = (np.cumsum(lengths) - lengths)[filled]
        values = entropies.astype(np.float64)
        means[filled] = np.add.reduceat(values, starts) / lengths[filled]
        most[filled] = np.maximum.reduceat(values, starts)
    return means, most


def answer_entropies(draws: np.ndarray, classes: Sequence[str | None]) -> np.ndarray:
    """The semantic entropy of a completion's problem, from all samples of it.

    Args:
        draws: (n,) labels: samples with one label answer one problem.
        classes: n answer classes, None for no answer.

    Returns:
        (n,) float64 nats; NaN where a problem has one sample only.
    """
    codes, counts = np.unique(draws, return_inverse=True, return_counts=True)[1:]
    members: list[list[str | None]] = [[] for _ in counts]
    for code, name in zip(codes.tolist(), classes, strict=True):
        members[code].append(name)
    values = [semantic_entropy(names) if len(names) > 1 else float("nan") for names in members]
    return np.array([values[code] for code in codes], dtype=np.float64)


def record_answers(
    files: Sequence[RecordFile], policies: dict[Path, Policy] | None = None, by: Sequence[str] = ()
) -> Answers:
    """The graded completions of records; ungraded ones are left out.

    Args:
        files: at least one.
        policies: how answers are read from the completions of a file; the default where it is not named.
        by: columns whose values make the label, besides those of `LABELS` that a file has.

    Raises:
        UserError: if nothing is graded, or a right answer cannot be found again.
    """
    parts = [_file_answers(file.path, (policies or {}).get(file.path, DEFAULT), by) for file in files]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    graded = whole["graded"]
    if not graded.any():
        raise UserError(f"no completion of {files[0].path} is graded; expected a run with a reward that grades")
    notes = [f"{int((~graded).sum()):,} completions are not graded and are left out."] if not graded.all() else []
    scored = int((~np.isnan(whole[MEAN]) & graded).sum())
    if 0 < scored < graded.sum():
        notes.append(
            f"Token entropies are known for {scored:,} of {int(graded.sum()):,} completions; others were not scored: "
            "with candidates=informative groups that are all right or all wrong, so compare predictors within "
            "problems, not over all."
        )
    return Answers(
        whole["wrong"][graded], whole["problems"][graded], whole["draws"][graded], whole["labels"][graded],
        {name: whole[name][graded] for name in PREDICTORS}, notes,
    )  # fmt: skip


def _file_answers(path: Path, policy: Policy, by: Sequence[str]) -> dict[str, np.ndarray]:
    """One file, by names of arrays of n values."""
    has = open_record(path, [*COLUMNS, *by, "token_ids"]).schema_arrow.names
    labelled = list(dict.fromkeys([*(name for name in LABELS if name in has), *by]))
    verdicts, groups, problems, labels = [], [], [], []
    for row in _rows(path, [*COLUMNS, *labelled]):
        found = extract(row["completion"], policy).text
        votes = not (policy.truncated_wrong and row["truncated"])
        verdicts.append({"extracted": found, "correct": row["correct"], "votes": votes})
        groups.append(row["group"])
        problems.append(row["prompt_id"] or row["prompt"])
        labels.append(" ".join(str(row[name]) for name in labelled))
    draws = np.array([f"{path} {group}" for group in groups], dtype=object)
    return {
        "graded": np.array([verdict["correct"] is not None for verdict in verdicts], dtype=bool),
        "wrong": np.array([not verdict["correct"] for verdict in verdicts], dtype=bool),
        "problems": np.array(problems, dtype=object), "draws": draws, "labels": np.array(labels, dtype=object),
        SEMANTIC: answer_entropies(draws, _classes(path, verdicts, groups)), **_token_numbers(path, len(verdicts)),
    }  # fmt: skip


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in open_record(path, columns).iter_batches(batch_size=ROWS, columns=list(columns)):
        yield from batch.to_pylist()


def _classes(path: Path, verdicts: list[dict[str, Any]], groups: Sequence[int]) -> list[str | None]:
    """The answer class of each completion, by the grader within its group.

    Raises:
        UserError: for a right answer that the rules of grading do not find.
    """
    from rlvr.evaluation.grading import answer_classes

    lost = sum(bool(verdict["correct"]) and verdict["extracted"] is None for verdict in verdicts)
    if lost:
        raise UserError(
            f"{path}: {lost} right completions hold no answer by the rules of grading; expected those the run was "
            "graded by: set --extract"
        )
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    found: list[str | None] = [None] * len(verdicts)
    names = answer_classes([[verdicts[index] for index in rows] for rows in members.values()])
    for rows, classes in zip(members.values(), names, strict=True):
        for index, name in zip(rows, classes, strict=True):
            found[index] = name
    return found


def _token_numbers(path: Path, count: int) -> dict[str, np.ndarray]:
    """Length of every completion; mean and largest entropy of those that were scored, NaN in the others."""
    numbers = {name: np.full(count, np.nan) for name in (MEAN, MOST, LENGTH)}
    for rows in token_rows(path, ["token_ids"]):
        numbers[LENGTH][rows.index] = rows.lengths
    for rows in token_rows(path, ["entropies"]):
        means, most = entropy_summaries(rows.tokens["entropies"], rows.lengths)
        numbers[MEAN][rows.index], numbers[MOST][rows.index] = means, most
    return numbers


def ledger_answers(folder: Path, protocol: str | None = None) -> Answers:
    """The graded samples of a ledger; it holds no token entropies, so the first two predictors are not known.

    Args:
        folder: of the ledger.
        protocol: its name, or the first digits of its hash; None where each benchmark has one only.

    Raises:
        UserError: if it is no ledger, or empty, or has nothing of the protocol, or a benchmark under two protocols: a
            sample that is graded twice would count twice.
    """
    from rlvr.evaluation.choosing import choose, require_one_protocol, short_names
    from rlvr.evaluation.scores import read_ledger

    scores = choose(read_ledger(folder), protocol=protocol)
    require_one_protocol(scores, may_mix=False)
    names = short_names(scores)
    several = len({one.checkpoint_hash for one in scores}) > 1
    wrong: list[np.ndarray] = []
    problems: list[str] = []
    draws: list[str] = []
    labels: list[str] = []
    lengths: list[np.ndarray] = []
    classes: list[str | None] = []
    for number, one in enumerate(scores):
        label = f"{one.benchmark} {names[one.checkpoint_hash]}" if several else one.benchmark
        for index, problem in enumerate(one.problems):
            size = len(one.correct[index])
            wrong.append(~one.correct[index])
            lengths.append(one.tokens[index].astype(np.float64))
            classes += one.classes[index]
            problems += [f"{one.benchmark} {problem}"] * size
            draws += [f"{number} {problem}"] * size
            labels += [label] * size
    told = np.array(draws, dtype=object)
    unknown = np.full(len(told), np.nan)
    return Answers(
        np.concatenate(wrong), np.array(problems, dtype=object), told, np.array(labels, dtype=object),
        {MEAN: unknown, MOST: unknown, SEMANTIC: answer_entropies(told, classes), LENGTH: np.concatenate(lengths)},
        ["A ledger holds no token entropies: `rlvr analyze sample` draws answers with them."],
    )  # fmt: skip


def with_levels(answers: Answers, file: Path) -> Answers:
    """The same answers with the level of their problem in the label.

    Args:
        answers: graded completions.
        file: a CSV file with the columns `problem_id` and `level`; ids as in the record's `prompt_id` or the ledger.

    Raises:
        UserError: if it cannot be read, lacks a column, or does not know a problem.
    """
    try:
        with file.expanduser().open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--levels {file} cannot be read ({error}); expected a CSV file") from None
    if not rows or not {"problem_id", "level"} <= rows[0].keys():
        raise UserError(f"--levels {file} has no columns problem_id and level; expected both, and a row a problem")
    level_of = {row["problem_id"]: row["level"] for row in rows}
    ids = [problem.rpartition(" ")[2] for problem in answers.problems]
    lost = [name for name in ids if name not in level_of]
    if lost:
        raise UserError(f"--levels {file} does not name problem {lost[0]}, and {len(set(lost)) - 1} others; add them")
    pairs = zip(answers.labels, ids, strict=True)
    labels = np.array([f"{label} level {level_of[name]}".strip() for label, name in pairs], dtype=object)
    return replace(answers, labels=labels)
