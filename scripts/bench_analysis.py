"""Time `rlvr analyze` on a record of a million tokens, each action in a process of its own.

    python -m scripts.bench_analysis                    # 10 steps of 100 completions of 1 000 tokens
    python -m scripts.bench_analysis --tokens 10000000

The record has the columns of a training run, entropies like those of a language model (most of them near 0), a
vocabulary of 50 000 with Zipf's frequencies, and groups of ten answers. `seconds` is the wall time of the whole
command, `CPU seconds` what it took of the cores, `peak` the most memory that its process held. The limit is 60 s and
2 GB for each, on two cores.
"""

import argparse
import multiprocessing as processes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

STEPS, LENGTH, GROUP, VOCABULARY = 10, 1000, 10, 50_000
ACTIONS = ("distribution", "tokens", "traces", "errors")
MOST_SECONDS, MOST_BYTES = 60.0, 2e9


def make_row(random: "np.random.Generator", step: int, row: int) -> dict[str, Any]:
    """A completion of `LENGTH` tokens; wrong ones are a little less decided."""
    import numpy as np

    correct = bool(random.random() < 0.5)
    answer = "7" if correct else str(random.integers(8, 12))
    entropies = (random.random(LENGTH) ** (8.0 if correct else 7.0) * 4).astype(np.float32)
    group = row // GROUP
    return {
        "step": step, "rollout_step": step, "row": row, "group": group, "prompt_id": f"{step:08x}{group:08x}",
        "prompt": f"problem {group} of step {step}", "completion": "words " * LENGTH + f"\\boxed{{{answer}}}",
        "gold": "7", "reward": float(correct), "rewards": {"accuracy": float(correct)}, "correct": correct,
        "status": "correct" if correct else "wrong", "truncated": False,
        "token_ids": np.minimum(random.zipf(1.3, LENGTH), VOCABULARY - 1).tolist(), "entropies": entropies.tolist(),
        "logprobs": (-entropies).tolist(), "kept": (entropies > 0.7).tolist(), "advantages": [0.5] * LENGTH,
    }  # fmt: skip


def make_run(folder: Path, tokens: int, steps: int = STEPS) -> None:
    """A run folder with a record of so many tokens, rounded up to whole completions of each step."""
    import numpy as np

    from rlvr.config.compose import compose, write_config
    from rlvr.rollouts.record import write_record

    random = np.random.default_rng(0)
    rows = -(-tokens // (LENGTH * steps))
    for step in range(1, steps + 1):
        write_record([make_row(random, step, row) for row in range(rows)], folder / "rollouts", step)
    write_config(compose([]), folder / "config.yaml")


def measured(command: list[str]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and peak bytes of a command.

    Raises:
        SystemExit: if it fails; with what it said.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def main() -> int:
    """Make the record, run the actions, print a table; exit code 1 above the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000, metavar="N", help="in the record (1000000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlvr-analysis-") as place:
        run = Path(place) / "run"
        # In a process of its own: a child's peak is at least what its parent held when it was started.
        maker = processes.get_context("spawn").Process(target=make_run, args=(run, arguments.tokens))
        maker.start()
        maker.join()
        count = -(-arguments.tokens // (LENGTH * STEPS)) * LENGTH * STEPS
        size = sum(path.stat().st_size for path in (run / "rollouts").iterdir())
        print(f"{count:,} tokens, {size / 2**20:.1f} MiB of Parquet, {os.cpu_count()} cores\n")
        print("| action | seconds | CPU seconds | peak, MB |\n| --- | ---: | ---: | ---: |")
        over = False
        for action in ACTIONS:
            seconds, busy, peak = measured([sys.executable, "-m", "rlvr.cli", "analyze", action, str(run)])
            print(f"| `{action}` | {seconds:.1f} | {busy:.1f} | {peak / 1e6:.0f} |", flush=True)
            over |= seconds > MOST_SECONDS or peak > MOST_BYTES
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
