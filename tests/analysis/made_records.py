"""Records written by hand: few tokens, known numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlvr.rollouts.record import record_path, write_record


def made_row(
    row: int,
    entropies: Sequence[float] | None,
    token_ids: Sequence[int] | None = None,
    *,
    group: int | None = None,
    correct: bool | None = True,
    answer: str = "1",
    **changes: Any,
) -> dict[str, Any]:
    """A completion `\\boxed{answer}` of any tokens; unscored without entropies; two rows share a prompt."""
    ids = list(token_ids if token_ids is not None else range(len(entropies or [])))
    group = row // 2 if group is None else group
    return {
        "step": 1, "rollout_step": 1, "row": row, "group": group, "prompt_id": f"p{group}", "prompt": f"{group}=",
        "completion": f"so \\boxed{{{answer}}}", "gold": "1", "reward": float(bool(correct)),
        "rewards": {"accuracy": float(bool(correct))}, "correct": correct,
        "status": None if correct is None else "correct" if correct else "wrong", "truncated": False,
        "token_ids": ids, "entropies": None if entropies is None else list(entropies),
        "logprobs": None if entropies is None else [-0.5] * len(ids), "kept": [one % 2 == 0 for one in ids],
        "advantages": [0.0] * len(ids),
    } | changes  # fmt: skip


def made_run(folder: Path, steps: dict[int, list[dict[str, Any]]]) -> Path:
    """A run folder with records by step."""
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").write_text("run: {name: x}\n")
    for step, rows in steps.items():
        write_record(rows, folder / "rollouts", step)
    return folder


def made_file(folder: Path, rows: list[dict[str, Any]], step: int = 1, **columns: Sequence[Any]) -> Path:
    """One record, with further columns."""
    write_record(rows, folder, step)
    path = record_path(folder, step)
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(list(values)))
    pq.write_table(table, path)
    return path
