"""`rlvr results`: what a ledger holds, as tables and curves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.errors import UserError
from rlvr.evaluation.choosing import choose, sections, short_names
from rlvr.evaluation.intervals import Interval
from rlvr.evaluation.results import Summary, summarise, summarise_together
from rlvr.evaluation.scores import Scores, read_ledger
from rlvr.evaluation.wording import (
    Sheet,
    csv_text,
    markdown_table,
    markdown_text,
    percent,
    percent_interval,
    protocol_facts,
    rich_tables,
    write_whole,
)

if TYPE_CHECKING:
    from rich.console import Console

INTERVALS = (
    "In brackets 95 % intervals over problems, which cover the draw of the problems and of the samples, not of the "
    "training seed."
)


@dataclass(frozen=True)
class Section:
    """Summaries that may stand in one table.

    Attributes:
        name: of the protocol.
        summaries: in the ledger's order; those over all benchmarks last.
        names: checkpoint hash -> short name.
        ks: k of the pass@k and maj@k that people see.
        mixed: several protocols are in it on purpose.
    """

    name: str
    summaries: list[Summary]
    names: dict[str, str]
    ks: tuple[int, ...]
    mixed: bool = False


def read_sections(scores: Sequence[Scores], ks: Sequence[int] | None = None, mixed: bool = False) -> list[Section]:
    """Summaries by protocol, each with those over all benchmarks.

    Args:
        scores: at least one.
        ks: as for `summarise`.
        mixed: put all protocols into one section.

    Raises:
        UserError: for a k above the samples of some problem.
    """
    names = short_names(scores)
    return [_section(part, ks, names, mixed) for part in ([list(scores)] if mixed else sections(scores))]


def _section(scores: list[Scores], ks: Sequence[int] | None, names: dict[str, str], mixed: bool) -> Section:
    summaries = [summarise(one, ks) for one in scores]
    benchmarks = {one.benchmark for one in scores}
    protocols = {(one.benchmark, one.protocol_hash) for one in scores}
    if len(benchmarks) > 1 and len(protocols) == len(benchmarks):
        together: dict[tuple[str, int], list[Scores]] = {}
        for one in scores:
            together.setdefault((one.checkpoint_hash, one.seed), []).append(one)
        # Means over different sets of benchmarks say nothing beside each other.
        whole = [parts for parts in together.values() if len(parts) == len(benchmarks)]
        summaries += [summarise_together(parts, ks) for parts in whole]
    shown = tuple(ks) if ks is not None else (min(max(one.pass_at) for one in summaries),)
    protocol = " and ".join(dict.fromkeys(one.protocol["name"] for one in scores))
    return Section(protocol, summaries, names, tuple(k for k in shown if k > 1 or ks is not None), mixed)


def sheet(section: Section, intervals: bool = True) -> Sheet:
    """A section as a table.

    Args:
        section: to show.
        intervals: show those of pass@k and maj@k too; avg@n always has its own.
    """
    shown: Callable[[Interval], str] = percent_interval if intervals else lambda value: percent(value.mean)
    rows = section.summaries
    columns: dict[str, list[str]] = {"checkpoint": [section.names[row.checkpoint_hash] for row in rows]}
    columns["benchmark"] = [row.benchmark for row in rows]
    if section.mixed:
        columns["protocol"] = [f"{row.protocol_name} ({row.protocol_hash[:8]})" for row in rows]
    if len({row.seed for row in rows}) > 1:
        columns["seed"] = [str(row.seed) for row in rows]
    columns |= {
        "problems": [row.asked for row in rows],
        "n": [row.samples for row in rows],
        "avg@n": [percent_interval(row.avg) for row in rows],
    }
    for k in section.ks:
        columns[f"pass@{k}"] = [shown(row.pass_at[k]) for row in rows]
        columns[f"maj@{k}"] = [shown(row.maj_at[k]) for row in rows]
    columns |= {
        "cut off": [percent(row.truncated) for row in rows],
        "no answer": [percent(row.no_answer) for row in rows],
        "tokens": [f"{row.tokens:.1f}" for row in rows],
    }
    failures = [row.timeouts + row.crashes for row in rows]
    if any(failures):
        columns["grader failed"] = [str(failed) for failed in failures]
    texts = [list(row) for row in zip(*columns.values(), strict=True)]
    return Sheet(f"protocol {section.name}", list(columns), texts, _notes(section))


def _notes(section: Section) -> list[str]:
    rows, notes = section.summaries, [INTERVALS]
    parts = dict.fromkeys(f"{row.asked} problems of {row.benchmark}" for row in rows if row.problems < row.total)
    if parts:
        notes.append(f"Only a part was asked: {', '.join(parts)}. Such a score is not the benchmark's.")
    if any(row.fewest < row.most for row in rows):
        notes.append(
            "Problems have different numbers of samples: each counts with its mean, and k goes up to the fewest."
        )
    if section.mixed:
        notes.append("Several protocols are mixed here on purpose: their scores cannot be compared.")
    single = [row for row in rows if len(row.benchmarks) == 1]
    timeouts, crashes = sum(row.timeouts for row in single), sum(row.crashes for row in single)
    if timeouts or crashes:
        notes.append(f"The grader ran out of time on {timeouts} samples and crashed on {crashes}; they count as wrong.")
    if any(len(row.benchmarks) > 1 for row in rows):
        notes.append("`all N`: the mean over the problems of all benchmarks, with a stratified interval.")
    return notes


def protocols_sheet(section: Section) -> Sheet:
    """How each benchmark was asked, a column a benchmark and hash."""
    protocols = {(row.benchmark, row.protocol_hash): row.protocol for row in section.summaries if row.protocol_hash}
    facts = {key: protocol_facts(protocol) for key, protocol in protocols.items()}
    rows = [["hash", *(key[1] for key in facts)]]
    rows += [[name, *(one[name] for one in facts.values())] for name in next(iter(facts.values()))]
    columns = ["protocol", *(benchmark for benchmark, _ in facts)]
    return Sheet("how it was asked", columns, rows, left=columns)


def csv_rows(section: Section) -> list[dict[str, Any]]:
    """A section as rows of a CSV file, with every k and all limits; shares from 0 to 1."""
    found = []
    for row in section.summaries:
        values: dict[str, Any] = {
            "checkpoint": row.checkpoint, "checkpoint_hash": row.checkpoint_hash, "step": row.step,
            "benchmark": row.benchmark, "benchmarks": " ".join(row.benchmarks), "protocol": row.protocol_name,
            "protocol_hash": row.protocol_hash, "seed": row.seed, "problems": row.problems, "total": row.total,
            "samples_fewest": row.fewest, "samples_most": row.most, "truncated": f"{row.truncated:.6f}",
            "no_answer": f"{row.no_answer:.6f}", "tokens": f"{row.tokens:.3f}", "grader_timeouts": row.timeouts,
            "grader_crashes": row.crashes,
        }  # fmt: skip
        measured = {"avg@n": row.avg}
        for k in row.pass_at:
            measured |= {f"pass@{k}": row.pass_at[k], f"maj@{k}": row.maj_at[k]}
        for name, value in measured.items():
            limits = {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
            values |= {key: f"{number:.6f}" for key, number in limits.items()}
        found.append(values)
    return found


def markdown(found: Sequence[Section]) -> str:
    """The sections as a Markdown file."""
    lines = ["# Evaluation results", ""]
    for section in found:
        table, asked = sheet(section), protocols_sheet(section)
        lines += [f"## {markdown_text(table.title)}", "", markdown_table(table), "", *table.notes, ""]
        lines += [f"### {asked.title}", "", markdown_table(asked), ""]
    return "\n".join(lines)


def html(found: Sequence[Section], name: str) -> str:
    """The sections as one page with curves, without a network.

    Args:
        found: the sections.
        name: of the ledger.
    """
    from rlvr.report.evaluation_figures import accuracy_figures, pass_figures
    from rlvr.report.page import page
    from rlvr.report.tokens import visible

    parts = [
        {
            "table": _seen(sheet(section)), "asked": _seen(protocols_sheet(section)),
            "figures": accuracy_figures(section.summaries, section.names, f"steps{index}x")
            + pass_figures(section.summaries, section.names, f"pass{index}x"),
        }
        for index, section in enumerate(found)
    ]  # fmt: skip
    return page("evaluation.html.j2", name=visible(name), sections=parts)


def _seen(table: Sheet) -> Sheet:
    """The sheet without invisible characters: labels and templates are texts of others."""
    from rlvr.report.tokens import visible

    rows = [[visible(cell) for cell in row] for row in table.rows]
    return Sheet(visible(table.title), [visible(column) for column in table.columns], rows, table.notes, table.left)


def show_results(
    ledger: Path,
    console: "Console",
    *,
    benchmarks: Sequence[str] | None = None,
    checkpoints: Sequence[str] | None = None,
    protocol: str | None = None,
    mixed: bool = False,
    ks: Sequence[int] | None = None,
    output: Path | None = None,
    only: Callable[[Scores], bool] | None = None,
) -> None:
    """Print what a ledger holds, and write it as `results.csv`, `results.md` and `results.html`.

    Args:
        ledger: its folder.
        console: where to print.
        benchmarks: names; None for all.
        checkpoints: as for `find_in_ledger`; None for all.
        protocol: its name, or the first digits of its hash; None for all, a table each.
        mixed: put all protocols into one table.
        ks: k of pass@k and maj@k; None for the powers of two up to n.
        output: a folder for the three files, or a file that ends in `.csv`, `.md` or `.html` for that one alone; None
            for the ledger's folder.
        only: what is printed; None for all that was chosen. The files have it all the same.

    Raises:
        UserError: if something is unknown, a k is above the samples of a problem, or a file cannot be written.
    """
    scores = choose(read_ledger(ledger, benchmarks), checkpoints, protocol)
    found = read_sections(scores, ks, mixed)
    for section in found if only is None else read_sections([one for one in scores if only(one)], ks, mixed):
        table = sheet(section, intervals=False)
        console.print(rich_tables(table, console.width))
        for note in table.notes:
            console.print(note, highlight=False, markup=False)
        console.print()
    written = _write(found, ledger, output)
    console.print(f"written: {', '.join(map(str, written))}", highlight=False, markup=False, soft_wrap=True)


def _write(found: Sequence[Section], ledger: Path, output: Path | None) -> list[Path]:
    makers: dict[str, Callable[[], str]] = {
        ".csv": lambda: csv_text([row for section in found for row in csv_rows(section)]),
        ".md": lambda: markdown(found),
        ".html": lambda: html(found, ledger.resolve().name),
    }
    folder = ledger if output is None else output
    if output is not None and output.suffix and not output.is_dir():
        if output.suffix not in makers:
            raise UserError(f"output {output} ends in {output.suffix}; expected {', '.join(makers)}, or a folder")
        return [write_whole(output, makers[output.suffix]())]
    texts = {folder / f"results{suffix}": make() for suffix, make in makers.items()}
    return [write_whole(path, text) for path, text in texts.items()]
