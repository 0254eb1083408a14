"""Train every algorithm and every control on the built-in task, and print the table of docs/results.md.

    python -m scripts.compare_algorithms FOLDER                     three seeds of each, one run after the other
    python -m scripts.compare_algorithms FOLDER --workers 2         two runs at a time (set OMP_NUM_THREADS=1)
    python -m scripts.compare_algorithms FOLDER --table             the table of the runs that are there

A run that has its summary is not made again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

ARMS: dict[str, list[str]] = {
    "grpo": ["algorithm=grpo"],
    "dapo": ["algorithm=dapo"],
    "dapo_top20": ["algorithm=dapo_top20"],
    "dr_grpo": ["algorithm=dr_grpo"],
    "rloo": ["algorithm=rloo"],
    "dapo_dynamic": ["algorithm=dapo_dynamic"],
    "ktae": ["algorithm=ktae"],
    "ktae_dapo": ["algorithm=ktae_dapo"],
    "ktae_top20": ["algorithm=ktae", "selection=top_entropy", "selection.keep=0.2"],
    "em_rl_sequence": ["algorithm=em_rl_sequence"],
    "em_rl_token": ["algorithm=em_rl_token"],
    "em_ft": ["algorithm=em_ft"],
    "one_shot_em": ["algorithm=one_shot_em", "data.train_size=1"],
    "self_consistency": ["reward=self_consistency"],
    "random_tokens": ["selection=random", "selection.keep=0.2"],
    "bottom80": ["selection=bottom_entropy", "selection.keep=0.8"],
    "random_reward": ["reward=random"],
    "format_reward": ["reward=format"],
}
"""What is compared: the settings that make each arm, everything else at its default."""


def run(folder: Path, arm: str, seed: int) -> str:
    """One run, if it is not there; a line that says how it went."""
    name = f"{arm}-{seed}"
    if (folder / name / "summary.json").exists():
        return f"{name}: there already"
    settings = [
        f"run.dir={folder}",
        f"run.name={name}",
        f"run.seed={seed}",
        "evaluation.every=10",
        "run.overwrite=true",
    ]
    command = [sys.executable, "-m", "rlvr.cli", "train", *settings, "logging.progress=none", *ARMS[arm]]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"{name}: {'done' if done.returncode == 0 else done.stderr.strip()[-400:]}"


def _metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _ends(rows: Sequence[dict], name: str) -> tuple[float, float]:
    """The means of the first and of the last ten values."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return mean(values[:10]), mean(values[-10:])


def row(folder: Path, arm: str, seeds: Sequence[int]) -> str | None:
    """A line of the table; None where no run of the arm is there."""
    runs = [folder / f"{arm}-{seed}" for seed in seeds if (folder / f"{arm}-{seed}" / "summary.json").exists()]
    if not runs:
        return None
    summaries = [json.loads((path / "summary.json").read_text()) for path in runs]
    metrics = [_metrics(path) for path in runs]
    before, after = (
        " ".join(f"{100 * one[f'accuracy_{when}']:.1f}" for one in summaries) for when in ("before", "after")
    )
    greedy = " ".join(f"{100 * one['greedy_after']:.1f}" for one in summaries)
    best = " ".join(
        f"{100 * value:.1f} @ {step}"
        for step, value in (max(one["accuracy_during"], key=lambda at: at[1]) for one in summaries)
    )
    entropies = [_ends(rows, "entropy") for rows in metrics if any(row.get("entropy") is not None for row in rows)]
    lengths = [_ends(rows, "completions/mean_length") for rows in metrics]
    speed = max(one["steps"] / one["train_seconds"] for one in summaries)
    spans = [
        f"{mean(a for a, _ in pairs):.3g} → {mean(b for _, b in pairs):.3g}" if pairs else "-"
        for pairs in (entropies, lengths)
    ]
    return f"| `{arm}` | {before} | {after} | {greedy} | {best} | {spans[0]} | {spans[1]} | {speed:.1f} |"


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description="Compare every algorithm on the built-in task.")
    parser.add_argument("folder", type=Path, help="where the runs are")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--table", action="store_true", help="make no run")
    arguments = parser.parse_args()
    if not arguments.table:
        jobs = [(arguments.folder, arm, seed) for seed in arguments.seeds for arm in arguments.arms]
        with ThreadPoolExecutor(arguments.workers) as pool:
            for line in pool.map(lambda job: run(*job), jobs):
                print(line, flush=True)
    print("| arm | before | after | greedy after | best on the way @ step | entropy | tokens | steps/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for arm in arguments.arms:
        line = row(arguments.folder, arm, arguments.seeds)
        if line:
            print(line)


if __name__ == "__main__":
    main()
