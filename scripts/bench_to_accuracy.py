"""Wall time of `rlvr train` on the built-in task to a held-out accuracy, against another checkout, in turns.

    git worktree add /tmp/before COMMIT
    python -m scripts.bench_to_accuracy --against /tmp/before --runs 3

From the start of the command to the line that says so: imports, data, the accuracy before training, and every
measurement on the way are in it. Both sides run with this interpreter and the same settings; a seed per run.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
ACCURACY = re.compile(r"held-out accuracy at step (\d+): ([\d.]+)%")


def to_accuracy(checkout: Path, seed: int, target: float, every: int, steps: int) -> tuple[float, int]:
    """(seconds, optimizer steps) until a measurement reaches the target.

    Raises:
        RuntimeError: if none does.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-u", "-m", "rlvr.cli", "train", f"run.seed={seed}", f"run.steps={steps}",
            f"evaluation.every={every}", f"run.dir={folder}", "run.name=x", "logging.progress=lines",
        ]  # fmt: skip
        started = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "200"}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None, "it is a pipe"
            for line in process.stdout:
                found = ACCURACY.search(line)
                if found and float(found[2]) >= 100 * target:
                    return time.perf_counter() - started, int(found[1])
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"{checkout} did not reach {target:.0%} in {steps} steps with seed {seed}")


def main() -> None:
    """Run both sides in turns; print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="a checkout of the commit to compare with")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.85)
    parser.add_argument("--every", type=int, default=5, help="optimizer steps between measurements")
    parser.add_argument("--steps", type=int, default=100, help="at most")
    arguments = parser.parse_args()
    sides = {"before": arguments.against.resolve(), "now": HERE}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    steps: dict[str, list[int]] = {name: [] for name in sides}
    for seed in range(arguments.runs):
        for name in (list(sides), list(sides)[::-1])[seed % 2]:
            spent, made = to_accuracy(sides[name], seed, arguments.target, arguments.every, arguments.steps)
            seconds[name].append(round(spent, 1))
            steps[name].append(made)
            print(f"seed {seed}, {name}: {spent:.1f} s, {made} steps", file=sys.stderr)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"| to {arguments.target:.0%} held-out | seconds (each run) | optimizer steps |\n| --- | --- | --- |")
    for name in sides:
        print(f"| {name} | {middle[name]:.1f} {seconds[name]} | {steps[name]} |")
    print(json.dumps({
        "seconds": seconds, "steps": steps, "ratio_of_medians": round(middle["now"] / middle["before"], 3),
        "load": round(os.getloadavg()[0], 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
