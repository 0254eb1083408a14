"""Contamination for people: a table, a CSV file, and the lines that a run shows before it starts."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr.data.base import Problem
from rlvr.errors import UserError
from rlvr.evaluation.benchmarks import Loaded, load_benchmark
from rlvr.evaluation.contamination import CONTAMINATED, N, Overlap, find_overlaps_of, training_prompts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLUMNS = ("benchmark", "problem_id", "coverage", "exact", "prompts", "prompt_id", "question", "prompt")
"""Of the CSV file: a row a problem that shares an n-gram with some training prompt."""

_EXCERPT = 60
"""Characters of a text in the table."""


def _counts(found: Sequence[Overlap]) -> tuple[int, int, int]:
    """Problems with any overlap, those contaminated, and those that stand whole in a prompt."""
    return len(found), sum(one.contaminated for one in found), sum(one.exact for one in found)


def _load(names: Sequence[str], benchmarks_dir: Path | None) -> dict[str, Loaded]:
    if not names:
        raise UserError("benchmarks is empty; expected names or paths, e.g. benchmarks=[aime24,math500]")
    loaded: dict[str, Loaded] = {}
    for name in names:
        one = load_benchmark(name, benchmarks_dir)
        if one.name in loaded:
            raise UserError(f"benchmarks names {one.name} twice; expected each once: remove or rename one")
        loaded[one.name] = one
    return loaded


def _find(
    problems: Iterable[Problem], names: Sequence[str], benchmarks_dir: Path | None, n: int
) -> tuple[dict[str, Loaded], dict[str, list[Overlap]]]:
    loaded = _load(names, benchmarks_dir)
    return loaded, find_overlaps_of(training_prompts(problems), {name: one.problems for name, one in loaded.items()}, n)


def contamination_notes(
    problems: Iterable[Problem], benchmark_names: Sequence[str], benchmarks_dir: Path | None = None, n: int = N
) -> list[str]:
    """One line per benchmark: how many of its problems stand in the training prompts.

    Args:
        problems: to train on.
        benchmark_names: as for `load_benchmark`.
        benchmarks_dir: as for `load_benchmark`.
        n: words of an n-gram.

    Raises:
        UserError: if a benchmark cannot be loaded, or n is less than 1.
    """
    loaded, overlaps = _find(problems, benchmark_names, benchmarks_dir, n)
    notes = []
    for name, found in overlaps.items():
        some, half, whole = _counts(found)
        total = len(loaded[name].problems)
        if not some:
            notes.append(f"contamination: none of the {total} problems of {name} is in the training prompts")
            continue
        worst = max(found, key=lambda one: (one.exact, one.coverage))
        notes.append(
            f"contamination: of the {total} problems of {name}, {half} are in a training prompt by half or more, "
            f"{whole} word for word; {some} share {n} words in a row or are shorter and the same (worst: problem "
            f"{worst.problem_id}, {worst.coverage:.0%} of it in prompt {worst.prompt_id})"
        )
    return notes


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT else f"{line[: _EXCERPT - 3]}..."


def _rates(loaded: dict[str, Loaded], overlaps: dict[str, list[Overlap]], n: int) -> "Table":
    from rich.table import Table

    table = Table(title=f"benchmark problems in the training prompts, n-grams of {n} words")
    table.add_column("benchmark")
    for heading in ("problems", "any", f">= {CONTAMINATED:.0%}", "exact"):
        table.add_column(heading, justify="right")
    for name, found in overlaps.items():
        table.add_row(name, str(len(loaded[name].problems)), *map(str, _counts(found)))
    return table


def _examples(overlaps: dict[str, list[Overlap]], worst: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    rows = sorted(
        ((one, name) for name, found in overlaps.items() for one in found),
        key=lambda row: (not row[0].exact, -row[0].coverage, row[1], row[0].problem_id),
    )
    table = Table(title=f"the worst {min(worst, len(rows))} of {len(rows)}")
    for heading in ("benchmark", "problem", "covered", "question", "training prompt", "its text"):
        table.add_column(heading, overflow="fold")
    for one, name in rows[:worst]:
        covered = "exact" if one.exact else f"{one.coverage:.0%}"
        texts = (name, one.problem_id, covered, _excerpt(one.question), one.prompt_id, _excerpt(one.prompt))
        table.add_row(*map(Text, texts))  # not as markup: questions have [brackets]
    return table


def _write(path: Path, overlaps: dict[str, list[Overlap]]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for name, found in overlaps.items():
                for one in found:
                    writer.writerow(
                        (name, one.problem_id, f"{one.coverage:.4f}", one.exact, one.prompts, one.prompt_id,
                         one.question, one.prompt)
                    )  # fmt: skip
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); expected a path in an existing folder") from None


def show_contamination(
    problems: Iterable[Problem],
    benchmark_names: Sequence[str],
    benchmarks_dir: Path | None = None,
    *,
    n: int = N,
    worst: int = 10,
    csv_path: Path | None = None,
    console: "Console | None" = None,
) -> int:
    """Print how many problems of each benchmark stand in the training prompts, and the worst of them.

    Args:
        problems: to train on; read once.
        benchmark_names: as for `load_benchmark`.
        benchmarks_dir: as for `load_benchmark`.
        n: words of an n-gram.
        worst: problems shown one by one.
        csv_path: where every overlap is written; None for nowhere.
        console: where to print; None for standard output.

    Returns:
        How many problems are contaminated: half of their n-grams or more in one prompt.

    Raises:
        UserError: if a benchmark cannot be loaded, n is less than 1, or the file cannot be written.
    """
    from rich.console import Console

    loaded, overlaps = _find(problems, benchmark_names, benchmarks_dir, n)
    console = console or Console()
    console.print(_rates(loaded, overlaps, n))
    if any(overlaps.values()) and worst:
        console.print(_examples(overlaps, worst))
    if csv_path is not None:
        _write(csv_path, overlaps)
        console.print(f"every overlap is in {csv_path}", highlight=False)
    return sum(_counts(found)[1] for found in overlaps.values())
