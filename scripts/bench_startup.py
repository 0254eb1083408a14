"""Time `rlvr train` in fresh processes, from the command to the first sampled token.

    python -m scripts.bench_startup --runs 3 run.seed=1

Milestones: the configuration is composed; the trainer's libraries are imported; the problems are read; the trainer is
built, with its model; a first token is sampled, for the held-out accuracy or, without held-out problems, for training.
There the process ends. `import` is a process that only imports TRL's trainer: what no change here can save.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

MILESTONES = ("composed", "imported", "problems", "trainer", "first token")
IMPORT = "import trl.trainer.grpo_trainer"
STARTED = "BENCH_STARTUP_STARTED"
MARK = "BENCH_STARTUP"


def mark(name: str) -> None:
    """Print a milestone and the seconds since the process was asked for."""
    print(MARK, json.dumps([name, time.time() - float(os.environ[STARTED])]), flush=True)


def _marked(function: Callable[..., Any], before: str | None, after: str) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        if before is not None:
            mark(before)
        result = function(*args, **more)
        mark(after)
        return result

    return call


def child(settings: list[str]) -> None:
    """`rlvr train` with marks, until the first token; modules are imported no earlier than without the marks."""
    from rlvr import cli

    def composed(arguments: argparse.Namespace) -> Any:
        config = read(arguments)
        mark("composed")
        from rlvr import train

        train.read_problems = _marked(train.read_problems, "imported", "problems")
        train.Run._trainer = built(train.Run._trainer)  # type: ignore[method-assign]
        return config

    def built(build: Callable[..., Any]) -> Callable[..., Any]:
        def call(run: Any) -> Any:
            trainer = build(run)
            mark("trainer")
            from transformers.generation import StoppingCriteriaList

            StoppingCriteriaList.__call__ = first_token  # asked after each token
            return trainer

        return call

    def first_token(*_: Any, **__: Any) -> None:
        mark("first token")
        raise SystemExit(0)

    read, cli._config = cli._config, composed
    cli.main(["train", *settings])


def seconds_of_imports() -> tuple[float, float]:
    """Seconds of a fresh process that only imports TRL's trainer, by the clock and of a processor.

    It works on one core, so the first over the second is how busy the machine is.

    Raises:
        subprocess.CalledProcessError: if that fails.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - start, processor


def run_once(settings: list[str]) -> dict[str, float]:
    """Seconds until each milestone of one start.

    Raises:
        RuntimeError: if the run ended before a milestone; with what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="bench_startup_") as folder:
        command = [
            sys.executable,
            "-m",
            "scripts.bench_startup",
            "--child",
            f"run.dir={folder}",
            "run.steps=1",
            *settings,
        ]
        done = subprocess.run(
            command, env=os.environ | {STARTED: repr(time.time())}, capture_output=True, text=True, check=False
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    found = dict(json.loads(line.removeprefix(MARK)) for line in lines)
    missing = [name for name in MILESTONES if name not in found]
    if missing:
        raise RuntimeError(f"the run did not come to {missing[0]!r}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="fresh processes (3)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of the run")
    args = parser.parse_args()
    if args.child:
        child(args.settings)
        return
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    runs, imports = [], []
    for _ in range(args.runs):
        imports.append(seconds_of_imports())
        runs.append(run_once(args.settings))
    columns = {"import": [wall for wall, _ in imports], "its CPU": [processor for _, processor in imports]} | {
        name: [run[name] for run in runs] for name in MILESTONES
    }
    print(f"seconds since the command, {args.runs} fresh processes")
    print(f"  {'milestone':<12} {'median':>7} {'min':>7} {'max':>7}")
    for name, values in columns.items():
        print(f"  {name:<12} {statistics.median(values):7.2f} {min(values):7.2f} {max(values):7.2f}")
    medians = {name: round(statistics.median(values), 3) for name, values in columns.items()}
    print(
        json.dumps(
            {"case": "startup", "runs": args.runs, "cores": os.cpu_count(), "load": os.getloadavg()[0], **medians}
        )
    )


if __name__ == "__main__":
    main()
