"""From runs to numbers, and from numbers to a table and lines of JSON."""

import json
import statistics
from collections.abc import Sequence
from typing import Any

from scripts.bench_steps.planned import Job

MIB = 2**20
Results = Sequence[dict[str, Any]]


def summarise(results: Results, peak: float | None) -> dict[str, Any]:
    """The numbers of one job over its runs.

    Args:
        results: of `scripts.bench_steps.step.run`.
        peak: FLOP/s of the device, or None.

    Returns:
        `seconds` of every run, `median_s`, `min_s`, `max_s`; `peak_mib`, the median of the peaks above what was in use
        before the step; `kept_tokens`; `positions` and `scored_positions`, forwarded with and without gradient;
        `useful_share`, kept tokens over forwarded positions; `gflop` of useful work, `gflop_per_s`, and `mfu`, its
        share of the peak. `error` alone where a run failed.
    """
    errors = [result["error"] for result in results if "error" in result]
    if errors:
        return {"error": errors[0]}
    seconds, first = [result["seconds"] for result in results], results[0]
    median, forwarded = statistics.median(seconds), first["positions"] + first["scored_positions"]
    rate = first["flops"] / median
    return {
        "seconds": [round(value, 4) for value in seconds],
        "median_s": round(median, 4), "min_s": round(min(seconds), 4), "max_s": round(max(seconds), 4),
        "peak_mib": round(statistics.median(result["peak_bytes"] for result in results) / MIB, 1),
        "kept_tokens": first["kept_tokens"], "positions": first["positions"],
        "scored_positions": first["scored_positions"], "useful_share": round(first["kept_tokens"] / forwarded, 4),
        "gflop": round(first["flops"] / 1e9, 3), "gflop_per_s": round(rate / 1e9, 3),
        "mfu": None if peak is None else round(rate / peak, 4),
    }  # fmt: skip


def compare(name: str, trl: tuple[Job, Results], ours: tuple[Job, Results], peak: float | None) -> dict[str, Any]:
    """One case: both trainers' numbers, and how many times TRL's time and what share of its memory ours takes.

    Returns:
        `case`, `trl` and `ours` as in `summarise` with their `rows`, `ratio` of the medians, `ratio_min` and
        `ratio_max` over the rounds, `peak_ratio`.
    """
    both = {
        who: {"rows": job.rows, **summarise(results, peak)} for who, (job, results) in (("trl", trl), ("ours", ours))
    }
    line: dict[str, Any] = {"case": name, "keep": ours[0].keep, "degenerate": ours[0].degenerate, **both}
    if any("error" in numbers for numbers in both.values()):
        return line
    rounds = [theirs / own for theirs, own in zip(both["trl"]["seconds"], both["ours"]["seconds"], strict=True)]
    line["ratio"] = round(both["trl"]["median_s"] / both["ours"]["median_s"], 2)
    line["ratio_min"], line["ratio_max"] = round(min(rounds), 2), round(max(rounds), 2)
    line["peak_ratio"] = round(both["ours"]["peak_mib"] / max(both["trl"]["peak_mib"], 0.1), 3)
    return line


def spread(numbers: dict[str, Any]) -> str:
    """Median and range in seconds, or the error."""
    if "error" in numbers:
        return f"FAILED: {numbers['error']}".replace("|", "/")
    return f"{numbers['median_s']:.2f} ({numbers['min_s']:.2f}-{numbers['max_s']:.2f})"


CASE_HEADER = (
    "case", "TRL s", "ours s", "times faster", "TRL peak MiB", "ours peak MiB", "peak ratio", "useful share TRL",
    "ours", "useful GFLOP/s TRL", "ours", "MFU TRL", "ours",
)  # fmt: skip


def case_cells(line: dict[str, Any]) -> list[str]:
    """A case as cells of the table."""
    trl, ours = line["trl"], line["ours"]
    cells = [line["case"], spread(trl), spread(ours)]
    if "ratio" not in line:
        return cells + ["-"] * (len(CASE_HEADER) - len(cells))
    return [
        *cells, f"{line['ratio']:.1f} ({line['ratio_min']:.1f}-{line['ratio_max']:.1f})",
        f"{trl['peak_mib']:.0f}", f"{ours['peak_mib']:.0f}", f"{line['peak_ratio']:.2f}",
        f"{trl['useful_share']:.1%}", f"{ours['useful_share']:.1%}",
        f"{trl['gflop_per_s']:.1f}", f"{ours['gflop_per_s']:.1f}", _percent(trl["mfu"]), _percent(ours["mfu"]),
    ]  # fmt: skip


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def print_lines(lines: Sequence[dict[str, Any]], common: dict[str, Any]) -> None:
    """One line of JSON each, with what they have in common."""
    for line in lines:
        print(json.dumps({**line, **common}))
