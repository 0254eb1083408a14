"""Every run in a fresh process that has imported everything and computed nothing."""

import logging
import multiprocessing
import platform
import subprocess
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts.bench_steps.planned import Job, Setting
from scripts.bench_steps.shapes import PEAK_TFLOPS

Runner = Callable[..., Any]
"""(function, *arguments) -> its result, computed somewhere."""

MATRIX = 2048


def fresh_process(device: str) -> Runner:
    """Run in new processes: forked from a server that has the imports on a CPU, spawned for CUDA, which cannot fork."""
    context = multiprocessing.get_context("spawn" if device == "cuda" else "forkserver")
    if device != "cuda":
        context.set_forkserver_preload(["scripts.bench_steps.step", "torch._dynamo"])

    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_quietly, function, *arguments).result()

    return run


def _quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    """What trainers say at every start would stand between the lines of the benchmark."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    return function(*arguments)


@dataclass
class Bench:
    """Runs jobs, and makes the recorded entropies that some of them need.

    Attributes:
        start: where jobs run.
        folder: for recorded entropies.
        say: called with a line about each run.
    """

    start: Runner
    folder: Path
    say: Callable[[str], None]
    recordings: dict[Setting, str] = field(default_factory=dict)

    def recorded(self, job: Job) -> Job:
        """The same run with entropies recorded while sampling, which are made here where they are not there yet."""
        from scripts.bench_steps.recorded import record

        if job.setting not in self.recordings:
            file = str(self.folder / f"recorded_{len(self.recordings)}.pt")
            self.start(record, job.setting, file)
            self.recordings[job.setting] = file
        return replace(job, recorded=self.recordings[job.setting])

    def run(self, job: Job) -> dict[str, Any]:
        """One measured step, or `error` with what went wrong: out of memory is a result here."""
        from scripts.bench_steps.step import run

        try:
            result: dict[str, Any] = self.start(run, job)
        except BrokenProcessPool:
            result = {"error": "the process was killed, as it is where memory runs out"}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        self.say(f"{describe(job)}: {result.get('error') or format(result['seconds'], '.2f') + ' s'}")
        return result

    def rounds(self, jobs: Sequence[Job], runs: int) -> dict[Job, list[dict[str, Any]]]:
        """Every job once a round, and the order of the jobs rotated by one from round to round."""
        jobs = list(dict.fromkeys(jobs))
        results: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
        for index in range(runs):
            first = index % len(jobs)
            for job in jobs[first:] + jobs[:first]:
                results[job].append(self.run(job))
        return results


def describe(job: Job) -> str:
    """A job in a few words."""
    parts = [f"{job.trainer}, {job.rows} rows", f"keep {job.keep:g}", f"degenerate {job.degenerate:g}"]
    parts += ["recorded"] * (job.recorded is not None) + [f"without {name}" for name in job.switched_off]
    return ", ".join(parts)


def peak_flops(device: str, threads: int) -> float | None:
    """FLOP/s of the device: by its data sheet on a GPU, None where unknown; of a large fp32 product on a CPU."""
    import time

    import torch

    if device == "cuda":
        name = torch.cuda.get_device_name()
        return next((tera * 1e12 for part, tera in PEAK_TFLOPS.items() if part in name), None)
    torch.set_num_threads(threads)
    matrix, seconds = torch.rand(MATRIX, MATRIX), []
    for _ in range(5):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return 2 * MATRIX**3 / min(seconds)


def machine(device: str) -> dict[str, str]:
    """What a measurement depends on: the device, versions, the commit."""
    import torch
    import transformers
    import trl

    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": name, "torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__,
        "commit": _commit(),
    }  # fmt: skip


def _commit() -> str:
    """Of this repository; `unknown` outside one."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
