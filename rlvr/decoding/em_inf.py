"""EM-INF: the entropy of each next-token distribution is minimised before a token is drawn (arXiv 2505.15134)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.decoding.base import Decoding
from rlvr.errors import UserError
from rlvr.registry import variant

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's moments, as in torch.optim.Adam."""


def entropy_and_gradient(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """H of each row, dH/dz = -p (ln p + H), and p.

    Rows do not see one another, to the last bit: a single row is summed as one of two, because torch splits the sum of
    one row over the threads, in another order.

    Args:
        logits: (B, V) floating point.

    Returns:
        (B,) nats, (B, V) and (B, V), in the dtype of the logits.
    """
    logps = torch.log_softmax(logits, dim=-1)
    probs = logps.exp()
    logps = logps.masked_fill(probs == 0, 0.0)  # 0 ln 0 is 0
    terms = probs * logps
    entropies = -(terms.expand(2, -1).sum(dim=-1)[:1] if len(terms) == 1 else terms.sum(dim=-1))
    return entropies, -probs * (logps + entropies[:, None]), probs


def em_inf_logits(
    logits: Tensor, threshold: float = 0.3, steps: int = 3, lr: float = 0.1, kl_weight: float = 0.05
) -> Tensor:
    """Logits after a few steps of Adam down `max(H, threshold) + kl_weight * KL(p_before || p)` (section 4, eq. 6).

    Each row is optimised by itself and stops by itself, before a step, as soon as its entropy is below the threshold.
    (The released code sums the entropy over the batch, and is right for one row.) With the published numbers, entropy
    falls at every step and the likeliest token stays the likeliest; the order of the others may change. A kl_weight of
    1 or more can overshoot in both. Adam moves every token by about `lr` a step, whatever its gradient: tokens with
    p > exp(-H) up, others down; tokens with a gradient far below 1e-8 stay where they are.

    Args:
        logits: (B, V) floats; -inf for a token that cannot come.
        threshold: delta, nats.
        steps: at most; 0 for none.
        lr: Adam's step size, in units of the logits.
        kl_weight: lambda, keeps the distribution near the model's.

    Returns:
        (B, V), a new tensor of the dtype of the logits. Float64 is computed in float64, all else in float32.

    Raises:
        ValueError: for numbers out of range, or logits that are not (B, V).
    """
    _check(threshold, steps, lr, kl_weight)
    if logits.dim() != 2:
        raise ValueError(f"logits are {tuple(logits.shape)}; expected (B, V)")
    final = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
    rows = torch.arange(len(final), device=final.device)
    current, before, first, second = final.clone(), None, torch.zeros_like(final), torch.zeros_like(final)
    for step in range(1, steps + 1):
        entropies, gradients, probs = entropy_and_gradient(current)
        left = (entropies >= threshold).nonzero().flatten()
        before = probs if before is None else before
        if len(left) < len(rows):
            rows, current, before, first, second, gradients, probs = (
                values.index_select(0, left) for values in (rows, current, before, first, second, gradients, probs)
            )  # fmt: skip
        if not len(rows):
            break
        gradients += kl_weight * (probs - before)
        first = BETA_1 * first + (1 - BETA_1) * gradients
        second = BETA_2 * second + (1 - BETA_2) * gradients.square()
        width = (second / (1 - BETA_2**step)).sqrt() + EPSILON
        current = current - lr * (first / (1 - BETA_1**step)) / width
        final.index_copy_(0, rows, current)
    return final.to(logits.dtype)


def _check(threshold: float, steps: int, lr: float, kl_weight: float) -> None:
    for name, value in (("threshold", threshold), ("steps", steps), ("kl_weight", kl_weight)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; expected 0 or a positive number")
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr is {lr}; expected a positive number, e.g. 0.1")


@variant("decoding", "em_inf")
@dataclass
class EMINF(Decoding):
    """Chosen with `decoding=em_inf`: EM-INF of arXiv 2505.15134 (section 4), for any number of rows at once.

    The defaults are those of the released script, with which the published tables were made; the protocol's temperature
    applies on top, and theirs is 0.1. The class in the released code has 5 steps and kl_weight 0.001; the paper speaks
    of 5 to 15 steps and thresholds of 0.1 to 0.5. Greedy decoding is unchanged: sample.
    In `generate` of transformers: `logits_processor=LogitsProcessorList([lambda ids, scores: rule(scores)])`.

    Attributes:
        threshold: nats; a row whose entropy is below it is left as it is.
        steps: gradient steps on the logits of a row, at most.
        lr: step size of Adam, in units of the logits.
        kl_weight: weight of the divergence from the model's own distribution.
    """

    threshold: float = 0.3
    steps: int = 3
    lr: float = 0.1
    kl_weight: float = 0.05

    def __post_init__(self) -> None:
        try:
            _check(self.threshold, self.steps, self.lr, self.kl_weight)
        except ValueError as error:
            raise UserError(f"decoding.{error}") from None

    def __call__(self, logits: Tensor) -> Tensor:
        return em_inf_logits(logits, self.threshold, self.steps, self.lr, self.kl_weight)
