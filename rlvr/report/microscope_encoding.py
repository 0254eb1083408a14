"""Packs completions for the token microscope: columns of all tokens, quantised, deflated, in base64; texts once."""

import base64
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlvr.report.completions import shortened
from rlvr.report.microscope_rows import Sample, Scores
from rlvr.report.tokens import ENTROPY_EDGES, Decode, pieces, token_text, visible

UNRANKED = 255
"""The rank of a sampled token that is not among the most likely ones."""

LEAST_SHARE = 0.001
"""Probability from which on an alternative is shown: most tokens are certain, and have none."""


def pack(kind: str, values: np.ndarray) -> dict[str, str]:
    """A column of numbers, as the page's script unpacks it.

    Args:
        kind: `half`: IEEE half precision, relative error at most 2^-11 from 6e-5 on, NaN for what is missing.
            `share`: of [0, 1], one byte of its square root, error at most (sqrt(share) + 1/1020) / 255, so 0.4 points
            near 1 and 0.04 near 0.01. `bits`: true or false. `byte`, `short`, `long`: whole numbers of 1, 2, 4 bytes.
        values: any shape, written row after row. Of numbers of several bytes first the lowest byte of each, then the
            next of each: high bytes are alike, and deflate well where they stand together.

    Raises:
        ValueError: for another kind, or a share outside [0, 1].
    """
    flat = np.ravel(values)
    if kind == "half":
        coded = flat.astype("<f2")
    elif kind == "share":
        if flat.size and not (flat.min() >= 0 and flat.max() <= 1):
            raise ValueError(f"shares from {flat.min()} to {flat.max()}; expected 0 to 1")
        coded = np.rint(np.sqrt(flat) * 255).astype("u1")
    elif kind == "bits":
        coded = np.packbits(flat.astype(bool), bitorder="little")
    else:
        widths = {"byte": "u1", "short": "<u2", "long": "<u4"}
        if kind not in widths:
            raise ValueError(f"kind is {kind!r}; expected half, share, bits, {', '.join(widths)}")
        coded = flat.astype(widths[kind])
    planes = coded.view("u1").reshape(coded.size, coded.itemsize).T if coded.size else coded
    return {"kind": kind, "data": base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()}


class Texts:
    """The texts of tokens, each once, and where in the list one stands."""

    def __init__(self, decode: Decode | None) -> None:
        self.decode = decode
        self.texts: list[str] = []
        self._places: dict[str, int] = {}
        self._of_piece: dict[str, int] = {}
        self._alone: dict[int, str] = {}

    def place(self, piece: str) -> int:
        """The index of a text; made visible, and new if it is."""
        if piece not in self._of_piece:
            shown = token_text(piece)
            if shown not in self._places:
                self._places[shown] = len(self.texts)
                self.texts.append(shown)
            self._of_piece[piece] = self._places[shown]
        return self._of_piece[piece]

    def alone(self, token_id: int) -> str:
        """The text of a token without others around it; its id where there is no tokenizer."""
        if token_id not in self._alone:
            self._alone[token_id] = str(token_id) if self.decode is None else self.decode([token_id])
        return self._alone[token_id]

    def of(self, token_ids: Sequence[int]) -> list[int]:
        """The places of a completion's tokens; their texts together are its text."""
        found = [self.alone(token) for token in token_ids]
        # Most tokenizers read a token alike wherever it stands; asking twice a token, as `pieces` does, is slow.
        if self.decode is not None and "".join(found) != self.decode(list(token_ids)):
            found = pieces(self.decode, token_ids)
        return [self.place(text) for text in found]

    def pack(self, places: np.ndarray) -> dict[str, str]:
        """A column of places, in as many bytes as the list needs."""
        return pack("short" if len(self.texts) <= 1 << 16 else "long", places)


def payload(samples: Sequence[Sample], decode: Decode | None, label: str | None = None) -> dict[str, Any]:
    """Everything the page's script draws from.

    Args:
        samples: the completions, N tokens together.
        decode: of the run's tokenizer; ids are shown without.
        label: of the policy that the recorded one is compared with.

    Returns:
        A value for JSON: `texts` and `prompts` (each once), `completions` (facts, and where their tokens begin),
        `columns` (N numbers each, `*top*` N * `top`), `edges` of the palette, `against`.
    """
    texts = Texts(decode)
    places = [np.array(texts.of(sample.token_ids.tolist()), np.int64) for sample in samples]
    columns = _own_columns(samples)
    policies = {"": [sample.scores for sample in samples]}
    if label is not None:
        policies["b_"] = [sample.against or Scores() for sample in samples]
    most = [scores.top_ids.shape[1] for group in policies.values() for scores in group if scores.top_ids is not None]
    width = max(most, default=0)
    for prefix, scores in policies.items():
        columns |= _policy_columns(prefix, samples, scores, places, texts, width)
    # Last, when the list of texts has its length.
    columns["text"] = np.concatenate(places)
    prompts = list(dict.fromkeys(sample.facts["prompt"] for sample in samples))
    return {
        "edges": ENTROPY_EDGES, "top": width, "against": None if label is None else visible(label),
        "texts": texts.texts, "prompts": [shortened(prompt) for prompt in prompts],
        "completions": _completions(samples, prompts),
        "columns": {name: _packed(name, values, texts) for name, values in columns.items()},
    }  # fmt: skip


def as_script(value: Any) -> str:
    """JSON that may stand in a `<script>` element: no `<` ends it or opens a comment in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


KINDS = {"kept": "bits", "rank": "byte", "top_p": "share"}
"""Kinds of columns by the end of their name; floats are `half`, texts are places."""


def _packed(name: str, values: np.ndarray, texts: Texts) -> dict[str, str]:
    bare = name.removeprefix("b_")
    return texts.pack(values) if bare in ("text", "top") else pack(KINDS.get(bare, "half"), values)


def _joined(arrays: Sequence[np.ndarray | None], lengths: Sequence[int]) -> np.ndarray:
    """(N,), NaN where a completion has none."""
    parts = [np.full(n, np.nan) if array is None else array for array, n in zip(arrays, lengths, strict=True)]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def _own_columns(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """What a completion has whoever scores it; optional columns only where one has them."""
    lengths = [len(sample.token_ids) for sample in samples]
    columns = {
        "kept": np.concatenate([sample.kept for sample in samples]),
        "advantage": _joined([sample.advantages for sample in samples], lengths),
    }
    if any(sample.ktae is not None for sample in samples):
        columns["ktae"] = _joined([sample.ktae for sample in samples], lengths)
    if any(sample.ratio is not None for sample in samples):
        # Ratios are near 1, where half precision is coarse; their logarithms are near 0, where it is fine.
        with np.errstate(divide="ignore", invalid="ignore"):
            columns["log_ratio"] = np.log(_joined([sample.ratio for sample in samples], lengths))
    return columns


def _policy_columns(
    prefix: str,
    samples: Sequence[Sample],
    scores: Sequence[Scores],
    places: Sequence[np.ndarray],
    texts: Texts,
    width: int,
) -> dict[str, np.ndarray]:
    """Entropies, log-probabilities and alternatives of one policy."""
    lengths = [len(sample.token_ids) for sample in samples]
    columns = {
        f"{prefix}entropy": _joined([one.entropies for one in scores], lengths),
        f"{prefix}logprob": _joined([one.logprobs for one in scores], lengths),
    }
    if any(one.top_ids is not None for one in scores):
        tops = [_alternatives(*three, texts, width) for three in zip(samples, scores, places, strict=True)]
        for name, arrays in zip(("top", "top_p", "rank"), zip(*tops, strict=True), strict=True):
            columns[f"{prefix}{name}"] = np.concatenate(arrays)
    return columns


def _alternatives(
    sample: Sample, scores: Scores, own: np.ndarray, texts: Texts, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (T, width) and probabilities of the most likely tokens, and the rank of the sampled one among them.

    A probability of 0 is no entry. The sampled token has the text that it has in the completion.
    """
    length = len(sample.token_ids)
    found, shares = np.zeros((length, width), np.int64), np.zeros((length, width))
    rank = np.full(length, UNRANKED)
    if scores.top_ids is None or scores.top_logprobs is None:
        return found, shares, rank
    count = scores.top_ids.shape[1]
    chances = np.exp(np.minimum(scores.top_logprobs, 0.0))
    shown = chances >= LEAST_SHARE
    ids, inverse = np.unique(scores.top_ids[shown], return_inverse=True)
    known = np.array([texts.place(texts.alone(int(token))) for token in ids], np.int64)
    found[:, :count][shown], shares[:, :count][shown] = known[inverse], chances[shown]
    rows, ranks = np.nonzero(scores.top_ids == sample.token_ids[:, None])
    found[rows, ranks], rank[rows] = own[rows], ranks
    return found, shares, rank


def _completions(samples: Sequence[Sample], prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Facts of each completion; texts are visible, numbers that are not finite are null."""
    problems = {prompt: index for index, prompt in enumerate(prompts)}
    found, start = [], 0
    for sample in samples:
        facts = sample.facts
        verdict = "ungraded" if facts["correct"] is None else "correct" if facts["correct"] else "wrong"
        policies = [sample.scores, *([] if sample.against is None else [sample.against])]
        found.append({
            "step": facts["step"], "row": facts["row"], "group": facts["group"], "id": visible(facts["prompt_id"]),
            "problem": problems[facts["prompt"]], "gold": shortened(facts["gold"]), "verdict": verdict,
            "status": visible(facts["status"] or "none"), "reward": _finite(facts["reward"]),
            "rewards": {visible(name): _finite(value) for name, value in facts["rewards"].items()},
            "truncated": bool(facts["truncated"]), "start": start, "length": len(sample.token_ids),
            "kept": int(sample.kept.sum()), "by": [_name(one.by) for one in policies],
            "top_by": [_name(one.top_by) for one in policies],
        })  # fmt: skip
        start += len(sample.token_ids)
    return found


def _name(text: str | None) -> str | None:
    return None if text is None else visible(text)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
