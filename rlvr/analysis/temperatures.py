"""Accuracy when the temperature differs at forks and elsewhere (arXiv 2506.01939, section 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr.data.base import Gold
from rlvr.decoding.fork_temperature import ForkTemperature
from rlvr.errors import UserError
from rlvr.evaluation.grading import LIMITS
from rlvr.evaluation.intervals import Interval, mean_interval
from rlvr.evaluation.paired import Paired, compare_many
from rlvr.evaluation.requests import Key, sample_seed
from rlvr.maths.entropy import token_entropy
from rlvr.rewards.grade import grade_many
from rlvr.rewards.policy import Policy
from rlvr.sampling.batched import BatchedSampler, Row
from rlvr.sampling.drawing import TOLERANCE
from rlvr.sampling.settings import Sampling


@dataclass
class SplitTemperature(ForkTemperature):
    """`ForkTemperature` whose temperatures may be 0: the likeliest token, for certain.

    Attributes:
        T_fork: temperature at forks, 0 or more.
        T_other: temperature everywhere else, 0 or more.
        threshold: nats at temperature 1.
    """

    def __post_init__(self) -> None:
        for name in ("T_fork", "T_other"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"a temperature is {getattr(self, name)}; expected 0 (the likeliest token) or more")
        if not self.threshold >= 0:
            raise UserError(f"--threshold is {self.threshold}; expected nats, at least 0")

    def doubtful(self, logits: Tensor) -> Tensor:
        """(B,) as `ForkTemperature`; also where the two likeliest tokens of a greedy row are close."""
        best = logits.topk(2, dim=-1).values
        return super().doubtful(logits) | ((self._temperatures(logits) == 0) & (best[:, 0] - best[:, 1] < TOLERANCE))

    def __call__(self, logits: Tensor) -> Tensor:
        """(B, V) logits over (B, V) logits divided by the temperature of their row; at 0 all but the best are out."""
        temperatures = self._temperatures(logits)
        greedy = temperatures == 0
        scaled = logits / torch.where(greedy, 1.0, temperatures)[:, None]
        best = torch.full_like(logits, -torch.inf).scatter(-1, logits.argmax(dim=-1, keepdim=True), 0.0)
        return torch.where(greedy[:, None], best, scaled)

    def _temperatures(self, logits: Tensor) -> Tensor:
        """(B,) of each row."""
        return torch.where(token_entropy(logits) > self.threshold, self.T_fork, self.T_other)


@dataclass(frozen=True)
class Asked:
    """N problems of a benchmark, as token ids.

    Attributes:
        benchmark: its name.
        ids: of the problems.
        prompts: token ids.
        golds: the right answers.
        grading: rules of the grader.
        max_tokens: of an answer.
    """

    benchmark: str
    ids: list[str]
    prompts: list[list[int]]
    golds: list[Gold]
    grading: Policy
    max_tokens: int


@dataclass(frozen=True)
class Arm:
    """One way of drawing, on all problems.

    Attributes:
        high: temperature at forks.
        low: temperature elsewhere.
        accuracies: (N,) share of right samples of each problem.
        forks: share of the drawn tokens that were forks.
        tokens: of a sample, on average.
        cut: share of samples that ended at the length limit.
    """

    high: float
    low: float
    accuracies: np.ndarray
    forks: float
    tokens: float
    cut: float

    @property
    def interval(self) -> Interval:
        """Mean accuracy; problems are the unit, samples of one are not independent."""
        return mean_interval(self.accuracies)


@dataclass(frozen=True)
class Sweep:
    """All arms, that with both temperatures at 1 first, and each other arm's difference from it.

    Attributes:
        threshold: nats; a token is a fork above it.
        arms: C + 1 of them.
        differences: C, paired by problem, with simultaneous intervals.
    """

    threshold: float
    arms: list[Arm]
    differences: list[Paired]


@dataclass
class Sampler:
    """Draws the same samples for every arm, as far as temperatures let them be the same.

    Attributes:
        model: the policy.
        tokenizer: its tokenizer.
        asked: the problems.
        samples: of each problem.
        seed: of all draws.
        batch_size: rows generated for at once; memory and speed only.
    """

    model: Any
    tokenizer: Any
    asked: Asked
    samples: int
    seed: int
    batch_size: int = 256

    def draw(self, rule: SplitTemperature | None) -> list[Row]:
        """N * samples ended rows, problem after problem, with the entropies of their tokens at temperature 1.

        Args:
            rule: which temperature where; None for plain sampling at temperature 1.
        """
        sampler = BatchedSampler(self.model, self.tokenizer, self.batch_size, rule, record=True)
        rows = []
        for index, (name, prompt) in enumerate(zip(self.asked.ids, self.asked.prompts, strict=True)):
            room = sampler.room(prompt, self.asked.max_tokens)
            if room < 1:
                raise UserError(f"problem {name} has {len(prompt)} tokens, the model reads {sampler.positions} at most")
            for sample in range(self.samples):
                seed = sample_seed(self.seed, Key(self.asked.benchmark, name, sample))
                rows.append(Row(index, prompt, seed, room))
        for _ in sampler.run(rows, Sampling(max_tokens=self.asked.max_tokens)):
            pass
        return rows

    def arm(self, high: float, low: float, rows: Sequence[Row], threshold: float) -> Arm:
        """Grade the rows of one arm.

        Args:
            high: temperature at forks that they were drawn with.
            low: temperature elsewhere.
            rows: of `draw`.
            threshold: nats.
        """
        sampler = BatchedSampler(self.model, self.tokenizer)
        texts = self.tokenizer.batch_decode([row.drawn for row in rows], skip_special_tokens=True)
        cut = [sampler.reason(row) == "length" for row in rows]
        golds = [self.asked.golds[row.index] for row in rows]
        verdicts = grade_many(texts, golds, cut, policy=self.asked.grading, limits=LIMITS)
        right = np.array([verdict.correct for verdict in verdicts], dtype=np.float64)
        entropies = entropies_of(rows)
        return Arm(
            high, low, right.reshape(len(self.asked.ids), self.samples).mean(axis=1),
            float((entropies > threshold).mean()), len(entropies) / len(rows), float(np.mean(cut)),
        )  # fmt: skip


def entropies_of(rows: Sequence[Row]) -> np.ndarray:
    """(K,) nats, of every token of every row."""
    return np.concatenate([np.asarray(row.entropies, dtype=np.float64) for row in rows])


def arms_of(highs: Sequence[float], lows: Sequence[float]) -> list[tuple[float, float]]:
    """(temperature at forks, elsewhere): both at 1 first, then each sweep with the other at 1, each pair once."""
    pairs = [(1.0, 1.0), *((high, 1.0) for high in sorted(highs)), *((1.0, low) for low in sorted(lows))]
    return list(dict.fromkeys(pairs))


def check_forks(threshold: float, percentile: float | None) -> None:
    """Refuse what marks no forks; before a model is loaded, where a command asks.

    Raises:
        UserError: for a percentile or a threshold out of range.
    """
    if percentile is not None and not 0 <= percentile <= 100:
        raise UserError(f"--percentile is {percentile}; expected 0 to 100")
    SplitTemperature(1.0, 1.0, threshold)


def sweep_temperatures(
    sampler: Sampler,
    highs: Sequence[float],
    lows: Sequence[float],
    *,
    threshold: float = 0.672,
    percentile: float | None = None,
    say: Callable[[str], None] = print,
) -> Sweep:
    """Draw and grade every arm.

    Args:
        sampler: of the model, with the problems.
        highs: temperatures at forks.
        lows: temperatures elsewhere.
        threshold: nats; 0.672 is the 80th percentile of the paper's tokens.
        percentile: of the entropies of plain samples, 0 to 100; the threshold then comes from it.
        say: takes lines of progress.

    Raises:
        UserError: for a percentile or a temperature out of range.
    """
    check_forks(threshold, percentile)
    rules = [SplitTemperature(high, low, threshold) for high, low in arms_of(highs, lows)]
    plain = sampler.draw(None)
    if percentile is not None:
        threshold = float(np.percentile(entropies_of(plain), percentile))
    arms = [sampler.arm(1.0, 1.0, plain, threshold)]
    say(f"1 of {len(rules)}: both temperatures at 1, threshold {threshold:.4g} nats")
    for number, rule in enumerate(rules[1:], 2):
        rule.threshold = threshold
        arms.append(sampler.arm(rule.T_fork, rule.T_other, sampler.draw(rule), threshold))
        say(f"{number} of {len(rules)}: {rule.T_fork:g} at forks, {rule.T_other:g} elsewhere")
    differences: list[Paired] = []
    if len(arms) > 1:
        differences = compare_many(arms[0].accuracies, np.stack([arm.accuracies for arm in arms[1:]]))
    return Sweep(threshold, arms, differences)
