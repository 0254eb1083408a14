"""`rlvr compare`: the table of a comparison, and what it says in a sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.errors import UserError
from rlvr.evaluation.choosing import choose, find_in_ledger
from rlvr.evaluation.comparing import Comparison, Difference, compare
from rlvr.evaluation.scores import Scores, read_ledger
from rlvr.evaluation.wording import (
    NOTHING,
    Sheet,
    csv_text,
    markdown_table,
    markdown_text,
    p_text,
    percent,
    points,
    rich_tables,
    write_whole,
)

if TYPE_CHECKING:
    from rich.console import Console


def comparison_sheet(comparison: Comparison) -> Sheet:
    """The table: a row per checkpoint and benchmark."""
    rows, many = comparison.differences, len(comparison.others) > 1
    several = len({row.benchmark for row in rows}) > 1
    correction = "p, corrected"
    columns = [
        "checkpoint",
        "benchmark",
        "problems",
        "A",
        "B",
        "B - A in points",
        "p",
        *([correction] if several else []),
    ]
    texts = []
    for row in rows:
        paired = row.paired
        cells = [row.name, row.benchmark, str(paired.problems), percent(row.a), percent(row.b)]
        cells += [points(paired.difference, paired.low, paired.high).replace(" points", ""), _p(paired.p_value)]
        texts.append([*cells, *([NOTHING if row.adjusted is None else _p(row.adjusted)] if several else [])])
    notes = [f"A is {comparison.name}; B is the checkpoint of the row. Differences are paired by problem."]
    if many:
        notes.append(
            f"Intervals hold at once for all {len(comparison.others)} checkpoints with 95 % confidence; p-values are "
            "corrected for their number (step-down max-T)"
            + (", and in the last column for the benchmarks." if several else ".")
        )
    else:
        notes.append("In brackets 95 % intervals; p-values are of sign flips, two-sided.")
        if several:
            notes.append("The last column is corrected for the number of benchmarks (Holm).")
    if several:
        notes.append("`all N`: over the problems of all benchmarks, with a stratified interval.")
    return Sheet(f"against {comparison.name}", columns, texts, [*notes, *comparison.notes])


def _p(p_value: float) -> str:
    return p_text(p_value).removeprefix("p ").removeprefix("= ")


def sentences(comparison: Comparison) -> list[str]:
    """What the comparison says, a sentence a checkpoint, and one about choosing the best."""
    found = [_sentence(comparison.name, row) for row in comparison.verdicts]
    if comparison.best is not None:
        best, name = comparison.best, comparison.others[comparison.best.best]
        text = f"Highest of the {len(comparison.others)} is {name} with {percent(best.naive_mean)}."
        found.append(
            f"{text} Chosen on one half of the problems and scored on the other, the best gives "
            f"{percent(best.honest_mean)}: choosing flatters by {100 * best.flattery:.1f} points."
        )
    return found


def _sentence(a: str, row: Difference) -> str:
    paired = row.paired
    where = f"over {row.benchmark.removeprefix('all ')} benchmarks" if row.adjusted is None else f"on {row.benchmark}"
    if not row.shown:
        return (
            f"No difference shown between {row.name} and {a} {where}: "
            f"{points(paired.difference, paired.low, paired.high)}, {p_text(paired.p_value)}; any difference in the "
            "brackets fits the samples."
        )
    better = paired.difference > 0
    low, high = sorted((abs(paired.low), abs(paired.high)))
    size = points(abs(paired.difference), low, high, sign=False)
    return f"{row.name} is {'better' if better else 'worse'} than {a} by {size}, {p_text(paired.p_value)} {where}."


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Rows of a CSV file; shares and differences from -1 to 1."""
    return [
        {
            "a": comparison.name, "b": row.name, "benchmark": row.benchmark, "problems": row.paired.problems,
            "a_avg": f"{row.a:.6f}", "b_avg": f"{row.b:.6f}", "difference": f"{row.paired.difference:.6f}",
            "low": f"{row.paired.low:.6f}", "high": f"{row.paired.high:.6f}", "p": f"{row.paired.p_value:.3g}",
            "p_corrected": None if row.adjusted is None else f"{row.adjusted:.3g}", "method": row.paired.method,
        }
        for row in comparison.differences
    ]  # fmt: skip


def comparison_markdown(comparison: Comparison) -> str:
    """The table, the notes and the sentences as a Markdown file."""
    table = comparison_sheet(comparison)
    said = [markdown_text(line) for line in [*table.notes, *sentences(comparison)]]
    return "\n\n".join([f"# Comparison {markdown_text(table.title)}", markdown_table(table), *said]) + "\n"


def show_comparison(
    ledger: Path,
    a: str,
    others: Sequence[str],
    console: "Console",
    *,
    benchmarks: Sequence[str] | None = None,
    protocol: str | None = None,
    mixed: bool = False,
    seed: int | None = None,
    output: Path | None = None,
) -> None:
    """Print how checkpoints of a ledger differ from A.

    Args:
        ledger: its folder.
        a: a checkpoint, as for `find_in_ledger`.
        others: checkpoints or patterns.
        console: where to print.
        benchmarks: names; None for all that the checkpoints have in common.
        protocol: its name, or the first digits of its hash, where there are several.
        mixed: compare under different protocols all the same.
        seed: look at samples of this seed only; None for all.
        output: a file that ends in `.csv` or `.md`; None for none.

    Raises:
        UserError: as for `compare`, or for a file that cannot be written.
    """
    if output is not None and output.suffix not in (".csv", ".md"):
        raise UserError(f"output {output} ends in {output.suffix or 'nothing'}; expected .csv or .md")
    scores = _under(read_ledger(ledger, benchmarks), [a, *others], protocol)
    comparison = compare(scores, a, others, mixed=mixed, seed=seed)
    table = comparison_sheet(comparison)
    console.print(rich_tables(table, console.width))
    for line in table.notes:
        console.print(line, highlight=False, markup=False)
    console.print()
    for line in sentences(comparison):
        console.print(line, highlight=False, markup=False, style="bold")
    if output is not None:
        is_csv = output.suffix == ".csv"
        write_whole(output, csv_text(comparison_rows(comparison)) if is_csv else comparison_markdown(comparison))
        console.print(f"written: {output}", highlight=False, markup=False, soft_wrap=True)


def _under(scores: Sequence[Scores], names: Sequence[str], protocol: str | None) -> list[Scores]:
    """The scores under a protocol, which all of the named checkpoints must have."""
    chosen = choose(scores, None, protocol)
    have = {one.checkpoint_hash for one in chosen}
    for name in names:
        if have.isdisjoint(find_in_ledger(scores, name)):
            raise UserError(f"{name} has no scores under protocol {protocol}; evaluate it so first, or choose another")
    return chosen
