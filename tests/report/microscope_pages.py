"""Runs and completions for the tests of the token microscope, and what its page holds."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from rlvr.report.microscope_rows import Sample, Scores
from rlvr.rollouts.record import write_record
from tests.report.folders import HOSTILE, WORDS, record_row, write_run

WIDTHS = {"half": "<f2", "share": "u1", "byte": "u1", "short": "<u2", "long": "<u4"}
VOCABULARY = 50_000
RTL = "\u05d0\u05d1 \u202e<b>\u2066"


def unpack(column: dict[str, str], count: int | None = None) -> np.ndarray:
    """The numbers of a column, read without the page's script."""
    raw = zlib.decompress(base64.b64decode(column["data"]))
    if column["kind"] == "bits":
        return np.unpackbits(np.frombuffer(raw, "u1"), bitorder="little")[:count].astype(bool)
    kind = np.dtype(WIDTHS[column["kind"]])
    values = np.frombuffer(raw, "u1").reshape(kind.itemsize, -1).T.copy().view(kind).ravel()
    return (values / 255.0) ** 2 if column["kind"] == "share" else values


def data_of(page: str) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def recorded(length: int, seed: int = 0) -> dict[str, Any]:
    """Optional columns of a completion: three alternatives, the first of which is token (seed + place) of `WORDS`."""
    ids = [[(seed + place + rank) % len(WORDS) for rank in range(3)] for place in range(length)]
    return {
        "ktae": [0.25] * length, "ratio": [1.0 + 0.001 * place for place in range(length)], "top_ids": ids,
        "top_logprobs": [[-0.125, -2.5, -4.0]] * length,
    }  # fmt: skip


def microscope_run(folder: Path) -> Path:
    """Two recorded steps, hostile texts everywhere, all optional columns; a right, a wrong and an ungraded answer."""
    write_run(folder, recorded=1)
    for path in (folder / "rollouts").iterdir():
        path.unlink()
    evil = " ".join(HOSTILE) + RTL
    for step in (1, 6):
        rows = [
            record_row(step, row, [(row + place) % len(WORDS) for place in range(12)], **recorded(12, row))
            for row in range(4)
        ]
        rows.append(record_row(step, 4, [1, 2, 1, 4], correct=None, status=None, **recorded(4, 1)))
        rows.append(
            record_row(step, 5, [6, 7, 8, 9, 10, 11], prompt=evil, gold=evil, status=evil, **recorded(6, 6))
            | {"rewards": {evil: 1.0, "b": 0.0}, "prompt_id": evil}
        )
        write_record(rows, folder / "rollouts", step)
    return folder


def noise(count: int, length: int, *, realistic: bool = True, against: bool = True) -> list[Sample]:
    """Completions with every column. Realistic ones are mostly certain and use few words often, as a model does.

    Args:
        count: completions.
        length: tokens of each.
        realistic: else all is as random as it can be.
        against: scores of a second policy too.
    """
    rng = np.random.default_rng(0)
    common = 1 / np.arange(1, VOCABULARY + 1)

    def words(shape: tuple[int, ...]) -> np.ndarray:
        return rng.choice(VOCABULARY, shape, p=common / common.sum() if realistic else None).astype(np.int32)

    def scores(ids: np.ndarray) -> Scores:
        scale = rng.choice([0.003, 0.05, 1.0], length, p=[0.5, 0.3, 0.2]) if realistic else np.ones(length)
        entropies = rng.exponential(scale).astype(np.float32)
        tops = words((length, 5))
        tops[:, 0] = np.where(rng.random(length) < 0.8, ids, tops[:, 0])
        chances = np.sort(rng.dirichlet(np.ones(6), length)[:, :5])[:, ::-1]
        if realistic:
            sure = np.exp(-entropies)[:, None]
            chances = np.concatenate([sure, (1 - sure) * chances[:, 1:]], 1)
        logprobs = np.log(np.maximum(chances, 1e-12))
        return Scores(entropies, logprobs[:, 0], "A", tops, logprobs, "A")

    samples = []
    for row in range(count):
        ids = words((length,))
        facts = record_row(1 + row // 64, row, [1], prompt=f"What is {row // 8} times {row}? " * 20)
        credit, ktae, ratio = rng.normal(size=length), rng.normal(size=length), np.exp(rng.normal(0, 0.05, length))
        kept, other = rng.random(length) < 0.2, scores(ids) if against else None
        samples.append(Sample(facts, ids, kept, credit, ktae, ratio, scores(ids), other))
    return samples


def word_decoder() -> Any:
    """A tokenizer of five-letter words."""
    words = [f" w{index:04x}" for index in range(VOCABULARY)]
    return lambda ids: "".join(words[index] for index in ids)
