"""The record of what was sampled: a Parquet file per recorded rollout batch, a row per completion."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.errors import UserError

Row = dict[str, Any]

LISTS = {"token_ids": "int32", "entropies": "float32", "logprobs": "float32", "kept": "bool", "advantages": "float32"}
"""Per-token columns, each as long as the completion, in nats; `kept` says whether a token was selected (under the
`micro_batch*` scopes: was a candidate). Log-probabilities and entropies are null in rows that were not scored."""

OPTIONAL = ("ref_logprobs", "ktae", "ratio")
"""Per-token columns that a file has where the run has such numbers: with a KL term, with KTAE's credit, where several
updates are made from a rollout batch. Beside them `top_ids` and `top_logprobs`: a list a token, the likeliest first."""


@dataclass
class RecordSection:
    """Which rollouts are written to `rollouts/step_*.parquet`.

    Attributes:
        every: rollout batches between two records; 0 for none.
        max_completions: rows in a file.
        alternatives: likeliest tokens noted at each place, by a forward pass over the rows of a file; 0 for none. Only
            where transformers samples and the weights are in one piece: not with vLLM, not under ZeRO-3.
    """

    every: int = 10
    max_completions: int = 64
    alternatives: int = 5

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("max_completions", 1), ("alternatives", 0)):
            if getattr(self, name) < least:
                raise UserError(
                    f"rollouts.record.{name} is {getattr(self, name)}; expected a number of at least {least}"
                )


def _schema(rows: Sequence[Row]) -> Any:
    import pyarrow as pa

    kinds = {"int32": pa.int32(), "float32": pa.float32(), "bool": pa.bool_()}
    fields = [
        ("step", pa.int32()), ("rollout_step", pa.int32()), ("row", pa.int32()), ("group", pa.int32()),
        ("prompt_id", pa.string()), ("prompt", pa.string()), ("completion", pa.string()), ("gold", pa.string()),
        ("reward", pa.float32()), ("rewards", pa.map_(pa.string(), pa.float32())), ("correct", pa.bool_()),
        ("status", pa.string()), ("truncated", pa.bool_()),
    ]  # fmt: skip
    fields += [(name, pa.list_(kinds[kind])) for name, kind in LISTS.items()]
    nested = {"top_ids": pa.list_(pa.list_(pa.int32())), "top_logprobs": pa.list_(pa.list_(pa.float32()))}
    optional = {**dict.fromkeys(OPTIONAL, pa.list_(pa.float32())), **nested}
    fields += [(name, kind) for name, kind in optional.items() if rows and name in rows[0]]
    return pa.schema(fields)


def record_path(folder: Path, step: int) -> Path:
    """`step_000120.parquet`: the optimizer step the rollout batch was made for."""
    return folder / f"step_{step:06d}.parquet"


def recorded_step(path: Path) -> int | None:
    """The optimizer step in the name of a record; None for another file."""
    found = re.fullmatch(r"step_(\d+)", path.stem)
    return int(found[1]) if found else None


def write_record(rows: Sequence[Row], folder: Path, step: int) -> Path:
    """Write the rows of one rollout batch; the file appears whole or not at all.

    Args:
        rows: a dict a completion, with the columns of `docs/metrics.md`.
        folder: `rollouts/` of the run.
        step: the optimizer step.

    Returns:
        The file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    path = record_path(folder, step)
    partial = path.with_suffix(".partial")
    schema = _schema(rows)
    maps = [{**row, "rewards": list(row["rewards"].items())} for row in rows]
    pq.write_table(pa.Table.from_pylist(maps, schema=schema), partial, compression="zstd")
    partial.replace(path)
    return path


def read_record(path: Path) -> list[Row]:
    """The rows of a record, `rewards` as a dict again."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    return [{**row, "rewards": dict(row["rewards"])} for row in rows]
