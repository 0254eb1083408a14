"""What a step of ours costs against what it depends on, and what each saving is worth."""

from dataclasses import replace
from typing import Any

from scripts.bench_steps.planned import GPU_HEAD, HEAD, PADDING, Job
from scripts.bench_steps.processes import Bench
from scripts.bench_steps.table import spread, summarise

CUT_OVER_MEDIAN = 4
MEDIANS = (60, 120, 240)
KEEPS = (0.05, 0.1, 0.2, 0.5, 1.0)
DEGENERATE = (0.0, 0.25, 0.5, 0.75)
VOCABULARIES = (4096, 32_768, 131_072)

CURVE_HEADER = (
    "against",
    "value",
    "entropies",
    "s",
    "peak MiB",
    "useful share",
    "useful GFLOP",
    "limit s",
    "s / limit",
)
ATTRIBUTION_HEADER = ("groups", "trainer, without", "s", "times", "peak MiB", "positions", "scored")


def points(job: Job) -> list[tuple[str, float, Job]]:
    """(what changes, its value, the run): lengths cut at four times their median, all else as in `job`."""
    shape = job.setting.shape
    found: list[tuple[str, float, Job]] = [
        ("median length", median, job.with_setting(median=median, cut=CUT_OVER_MEDIAN * median)) for median in MEDIANS
    ]
    found += [("kept share", keep, replace(job, keep=keep)) for keep in KEEPS]
    found += [("degenerate groups", share, replace(job, degenerate=share)) for share in DEGENERATE]
    found += [("vocabulary", size, job.with_setting(shape=replace(shape, vocabulary=size))) for size in VOCABULARIES]
    return found


def curves(bench: Bench, job: Job, runs: int, peak: float | None) -> list[dict[str, Any]]:
    """A line for every point, with the pass for the entropies and with recorded ones.

    `limit_s` is the useful work at the device's peak.
    """
    found = [
        (what, value, entropies, bench.recorded(each) if entropies == "recorded" else each)
        for what, value, each in points(job)
        for entropies in ("pass", "recorded")
    ]
    results = bench.rounds([each for *_, each in found], runs)
    lines = []
    for what, value, entropies, each in found:
        line = {"curve": what, "value": value, "entropies": entropies, **summarise(results[each], peak)}
        if peak is not None and "error" not in line:
            line["limit_s"] = round(line["gflop"] * 1e9 / peak, 4)
        lines.append(line)
    return lines


def curve_cells(line: dict[str, Any]) -> list[str]:
    """A point as cells of the table."""
    cells = [line["curve"], f"{line['value']:g}", line["entropies"], spread(line)]
    if "error" in line:
        return cells + ["-"] * (len(CURVE_HEADER) - len(cells))
    limit = line.get("limit_s")
    return [
        *cells, f"{line['peak_mib']:.0f}", f"{line['useful_share']:.1%}", f"{line['gflop']:.0f}",
        "-" if limit is None else f"{limit:.2f}", "-" if limit is None else f"{line['median_s'] / limit:.1f}",
    ]  # fmt: skip


def attribution(bench: Bench, job: Job, trl: Job, runs: int) -> list[dict[str, Any]]:
    """A line for every way of switching savings off, with recorded entropies, so that only the gradient pass counts.

    `rows` without gradient are put back by rewards that make every group informative, on the same rollouts. `times`
    is the time over that with nothing switched off, of the same trainer.
    """
    full = bench.recorded(job)
    half = replace(full, degenerate=0.5)
    both = (PADDING, HEAD)
    variants: list[tuple[str, str, Job, Job]] = [
        ("informative", "ours", full, full),
        *(("informative", f"ours, without {name}", replace(full, switched_off=(name,)), full) for name in both),
        ("informative", "ours, without padding, head", replace(full, switched_off=both), full),
        ("half degenerate", "ours", half, half),
        *(("half degenerate", f"ours, without {name}", replace(half, switched_off=(name,)), half) for name in both),
        ("half degenerate", "ours, without rows", full, half),
        ("half degenerate", "ours, without padding, head, rows", replace(full, switched_off=both), half),
        ("informative", "TRL", trl, trl),
        ("informative", "TRL, head of a GPU", replace(trl, switched_off=(GPU_HEAD,)), trl),
    ]
    results = bench.rounds([each for *_, each, _ in variants], runs)
    lines = []
    for groups, name, each, base in variants:
        numbers, of_base = summarise(results[each], None), summarise(results[base], None)
        line: dict[str, Any] = {"groups": groups, "variant": name, **numbers}
        if "error" not in numbers and "error" not in of_base:
            line["times"] = round(numbers["median_s"] / of_base["median_s"], 2)
        lines.append(line)
    return lines


def attribution_cells(line: dict[str, Any]) -> list[str]:
    """A variant as cells of the table."""
    cells = [line["groups"], line["variant"], spread(line)]
    if "times" not in line:
        return cells + ["-"] * (len(ATTRIBUTION_HEADER) - len(cells))
    numbers = (f"{line['peak_mib']:.0f}", str(line["positions"]), str(line["scored_positions"]))
    return [*cells, f"{line['times']:.2f}", *numbers]
