"""Token selection in plain Python: sort and slice, with fractions and integers of unlimited size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

RULES = ("top_entropy", "bottom_entropy", "random", "all")
KEEPS = (0.1, 0.2, 0.25, 0.3, 0.5, 0.8, 0.9, 1.0, 0.001)
LEVELS = (0.0, -0.0, -1e-9, 0.1, 0.2, 0.30000001, 1.0, 2.0, math.inf)


def splitmix64(seed: int, step: int, row: int, token: int) -> int:
    """The chain of splitmix64 over four counters (Steele et al., OOPSLA 2014), cut to 63 bits."""
    wrap, state = 2**64 - 1, 0
    for counter in (seed, step, row, token):
        state = (state + counter + 0x9E3779B97F4A7C15) & wrap
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & wrap
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & wrap
        state ^= state >> 31
    return state & (2**63 - 1)


@dataclass
class Case:
    """Inputs of `select_tokens`; tensors are (B, T) and (B,)."""

    entropies: Tensor
    mask: Tensor
    candidates: Tensor
    rows: Tensor
    keep: float
    rule: str
    scope: str
    group_size: int
    seed: int
    step: int

    def keywords(self) -> dict[str, object]:
        names = ("keep", "rule", "scope", "group_size", "candidates", "rows", "seed", "step")
        return {name: getattr(self, name) for name in names}

    def take(self, index: Tensor | slice) -> "Case":
        """The same case with some rows, in the given order."""
        fields = {name: getattr(self, name)[index] for name in ("entropies", "mask", "candidates", "rows")}
        return replace(self, **fields)


def make_case(seed: int, scopes: tuple[str, ...] = ("rollout", "group", "sequence", "micro_batch")) -> Case:
    """A random small case with many ties, padding anywhere, rows in no order, and NaN where nobody votes."""
    rng = np.random.default_rng(seed)
    group_size = int(rng.integers(1, 4))
    rows, tokens = int(rng.integers(0, 4)) * group_size, int(rng.integers(0, 7))
    mask = torch.from_numpy(rng.random((rows, tokens)) < 0.75)
    candidates = torch.from_numpy(rng.random(rows) < 0.8)
    entropies = torch.from_numpy(rng.choice(LEVELS, size=(rows, tokens))).float()
    entropies[~(mask & candidates.unsqueeze(1))] = math.nan
    order = torch.from_numpy(rng.permutation(5 * rows + 1)[:rows].copy()).long()
    return Case(
        entropies, mask, candidates, order, float(rng.choice(KEEPS)), str(rng.choice(RULES)), str(rng.choice(scopes)),
        group_size, int(rng.integers(0, 5)), int(rng.integers(0, 5)),
    )  # fmt: skip


def segments(case: Case) -> Iterator[range]:
    """The tensor rows that share one threshold."""
    width = {"sequence": 1, "group": case.group_size}.get(case.scope, max(1, len(case.rows)))
    return (range(start, start + width) for start in range(0, len(case.rows), width))


def select(case: Case) -> tuple[Tensor, list[float]]:
    """The mask, and the threshold of every segment (NaN where entropy did not decide)."""
    mask, thresholds = torch.zeros_like(case.mask), []
    for segment in segments(case):
        pool = []  # (what to sort by, row, token) ascending: the first are taken first
        for b in segment:
            inside = [t for t in range(case.mask.shape[1]) if case.mask[b, t]]
            for token, t in enumerate(inside if case.candidates[b] else []):
                row = int(case.rows[b])
                random = -splitmix64(case.seed, case.step, row, token)
                pool.append((random if case.rule == "random" else -float(case.entropies[b, t]), row, token, (b, t)))
        pool.sort(key=lambda item: item[:3])
        share = Fraction(Decimal(repr(case.keep)))
        share = {"all": Fraction(1), "bottom_entropy": 1 - share}.get(case.rule, share)
        cut = math.ceil(share * len(pool))
        for *_, place in pool[cut:] if case.rule == "bottom_entropy" else pool[:cut]:
            mask[place] = True
        decided = cut > 0 and case.rule in ("top_entropy", "bottom_entropy")
        thresholds.append(-pool[cut - 1][0] if decided else math.nan)
    return mask, thresholds
