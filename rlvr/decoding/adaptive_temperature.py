"""Adaptive temperature: a row is cooled until its entropy is a share of what it was (arXiv 2505.15134, section 4)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.decoding.base import Decoding
from rlvr.decoding.em_inf import entropy_and_gradient
from rlvr.errors import UserError
from rlvr.registry import variant

HALVINGS = 30
"""Temperatures are found to within (highest - lowest) / 2**30, below the spacing of float32 near 1."""


def adaptive_temperature(
    logits: Tensor,
    alpha: float = 0.85,
    delta: float = 1e-5,
    lowest: float = 0.01,
    highest: float = 1.0,
    tolerance: float = 0.0,
) -> Tensor:
    """The largest temperature at which a row's entropy is at most max(alpha * H, delta), with H that at temperature 1.

    Entropy grows with temperature, so bisection finds it. A row that is at most delta to begin with keeps temperature
    1. Where even `lowest` leaves more entropy than allowed, as with two equal maxima, the answer is `lowest`.

    Args:
        logits: (B, V) floats; -inf for a token that cannot come.
        alpha: share of the entropy that may stay, at least 0.
        delta: nats that may stay in any case.
        lowest: the lowest temperature, above 0.
        highest: the highest temperature.
        tolerance: nats; a row is done at the first temperature tried whose entropy is this near to its target. 0 for
            the exact answer; 0.1 in the released code.

    Returns:
        (B,) temperatures, in the dtype of the logits, at least in float32.

    Raises:
        ValueError: for numbers out of range, or logits that are not (B, V).
    """
    _check(alpha, delta, lowest, highest, tolerance)
    if logits.dim() != 2:
        raise ValueError(f"logits are {tuple(logits.shape)}; expected (B, V)")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    entropies = entropy_and_gradient(logits)[0]
    targets = (alpha * entropies).clamp(min=delta)
    temperatures = torch.full_like(entropies, highest)
    temperatures[entropies <= delta] = 1.0
    at_highest = entropies if highest == 1 else entropy_and_gradient(logits / highest)[0]
    rows = ((entropies > delta) & (at_highest > targets)).nonzero().flatten()
    low, high = torch.full_like(entropies[rows], lowest), torch.full_like(entropies[rows], highest)
    for _ in range(HALVINGS if len(rows) else 0):
        middle = (low + high) / 2
        excess = entropy_and_gradient(logits.index_select(0, rows) / middle[:, None])[0] - targets[rows]
        near = excess.abs() < tolerance
        low = torch.where(near | (excess <= 0), middle, low)
        high = torch.where(near | (excess > 0), middle, high)
    temperatures[rows] = low
    return temperatures


def _check(alpha: float, delta: float, lowest: float, highest: float, tolerance: float) -> None:
    for name, value in (("alpha", alpha), ("delta", delta), ("tolerance", tolerance)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; expected 0 or a positive number")
    if not 0 < lowest <= highest < float("inf"):
        raise ValueError(f"lowest is {lowest} and highest {highest}; expected 0 < lowest <= highest")


@variant("decoding", "adaptive_temperature")
@dataclass
class AdaptiveTemperature(Decoding):
    """Chosen with `decoding=adaptive_temperature`: the baseline of EM-INF (arXiv 2505.15134, section 4).

    The defaults are those of the released script; the paper speaks of alpha between 0.4 and 0.6. The protocol's own
    temperature applies on top: leave it at 1. The order of the tokens is unchanged.

    Attributes:
        alpha: share of a row's entropy that may stay.
        delta: nats that may stay in any case.
        lowest: the lowest temperature.
        highest: the highest temperature.
        tolerance: nats; how near to its target a row's entropy must come. 0 is exact; 0.1 in the released code.
    """

    alpha: float = 0.85
    delta: float = 1e-5
    lowest: float = 0.01
    highest: float = 1.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        try:
            _check(self.alpha, self.delta, self.lowest, self.highest, self.tolerance)
        except ValueError as error:
            raise UserError(f"decoding.{error}") from None

    def __call__(self, logits: Tensor) -> Tensor:
        found = adaptive_temperature(logits, self.alpha, self.delta, self.lowest, self.highest, self.tolerance)
        return (logits / found[:, None]).to(logits.dtype)
