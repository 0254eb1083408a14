"""A cell that trains nothing: `python fake_cell.py FOLDER CELL`. Its numbers follow from its name alone.

FAKE_SECONDS: how long it takes. A file `broken-CELL` in the folder makes it fail.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS = 4


def ends(*_: object) -> None:
    sys.exit(75)


def number(cell: str, name: str) -> float:
    """From 0 to 1, in steps of 1/512."""
    return int.from_bytes(hashlib.sha256(f"{cell}/{name}".encode()).digest()[:2], "big") % 513 / 512


def main(folder: Path, cell: str) -> None:
    signal.signal(signal.SIGTERM, ends)
    run = folder / cell
    run.mkdir(exist_ok=True)
    with (folder / "starts.txt").open("a") as file:
        file.write(f"{cell} {os.getpid()}\n")
    print(f"this is {cell}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}", flush=True)
    if (folder / f"broken-{cell}").exists():
        print("it breaks", file=sys.stderr)
        sys.exit(3)
    rows = []
    for step in range(1, STEPS + 1):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")) / STEPS)
        (run / "alive.txt").write_text(str(time.monotonic()))
        values = {"entropy": number(cell, f"e{step}"), "completions/mean_length": 10 + step}
        rows.append({"step": step, "rollout_step": step, "seconds": 0.5 * step, **values})
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "accuracy_before": 0.5, "accuracy_after": number(cell, "after"), "greedy_before": 0.5,
        "greedy_after": number(cell, "greedy"), "heldout_problems": 512, "steps": STEPS, "train_seconds": 2.0,
        "seed": int(cell.rsplit("seed", 1)[1]), "accuracy_during": [], "code": "fake",
    }  # fmt: skip
    partial = run / "summary.partial"
    partial.write_text(json.dumps(summary))
    partial.replace(run / "summary.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
