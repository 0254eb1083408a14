"""The comparison with TRL: its fastest micro-batch, then alternating rounds of every case."""

from dataclasses import replace
from typing import Any

from scripts.bench_steps.planned import Job, Setting
from scripts.bench_steps.processes import Bench
from scripts.bench_steps.table import compare, summarise

HALF = 0.5
CASES = {
    "a, informative": (0.0, 0.2, False),
    "b, informative": (0.0, 0.2, True),
    "a, half degenerate": (HALF, 0.2, False),
    "b, half degenerate": (HALF, 0.2, True),
    "c, keep 1": (0.0, 1.0, True),
}
"""Share of degenerate groups, share of kept tokens, and whether the sampler recorded entropies, by case.

a: with the pass without gradient that finds the entropies. b: with entropies recorded while
sampling. c: every token, entropies recorded.
"""


def fastest(bench: Bench, job: Job, candidates: list[int]) -> tuple[Job, list[dict[str, Any]]]:
    """The job with the micro-batch that took the least time in one run each, and a line about each.

    A single candidate is taken as it is.

    Raises:
        RuntimeError: if no run succeeded.
    """
    jobs = [replace(job, rows=rows) for rows in candidates]
    if len(jobs) == 1:
        return jobs[0], []
    results = {each: bench.run(each) for each in jobs}
    done = {each: result["seconds"] for each, result in results.items() if "error" not in result}
    if not done:
        raise RuntimeError(f"no micro-batch of {candidates} ran: {next(iter(results.values()))['error']}")
    best = min(done, key=lambda each: done[each])
    return best, [
        {"sweep": job.trainer, "rows": each.rows, "fastest": each == best, **summarise([result], None)}
        for each, result in results.items()
    ]


def jobs_of(bench: Bench, name: str, setting: Setting, trl_rows: int, ours_rows: int) -> tuple[Job, Job]:
    """TRL's and our run of a case."""
    degenerate, keep, recorded = CASES[name]
    ours = Job("ours", setting, ours_rows, degenerate, keep)
    return Job("trl", setting, trl_rows, degenerate, keep), bench.recorded(ours) if recorded else ours


def all_cases(
    bench: Bench, setting: Setting, names: list[str], runs: int, trl_rows: list[int], ours_rows: list[int],
    peak: float | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # fmt: skip
    """Lines about the sweep of micro-batches, and about every case.

    TRL cannot use recorded entropies: its runs of a case are shared by those with the same rollouts and rewards.
    """
    trl, sweep = fastest(bench, Job("trl", setting), trl_rows)
    ours, own_sweep = fastest(bench, Job("ours", setting), ours_rows)
    pairs = {name: jobs_of(bench, name, setting, trl.rows, ours.rows) for name in names}
    results = bench.rounds([job for pair in pairs.values() for job in pair], runs)
    return sweep + own_sweep, [
        compare(name, (theirs, results[theirs]), (own, results[own]), peak) for name, (theirs, own) in pairs.items()
    ]
