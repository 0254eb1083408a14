"""Entropies with gradient, at a temperature of their own, on as few positions as needed: TRL's fused head has none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlvr.maths.entropy import entropy_and_logps, token_entropy
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.forward import Packed, Tokens


@contextmanager
def chosen_positions(head: Any, where_NL: Tensor) -> Iterator[None]:
    """Let a model's output embeddings project the true positions only: (N, L, D) hidden states become (1, K, D).

    For forwards through the model itself, so that the hooks of DDP, DeepSpeed and PEFT run. K may be 0.

    Args:
        head: the output embeddings of the unwrapped model.
        where_NL: (N, L) bool, positions of the input.
    """

    def choose(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = inputs
        if hidden.shape[:2] != where_NL.shape:
            raise ValueError(f"the LM head got {tuple(hidden.shape[:2])} positions; expected {tuple(where_NL.shape)}")
        return hidden[where_NL].unsqueeze(0), *rest

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class EntropyTerms:
    """What a pass computes for an objective that differentiates entropies.

    Attributes:
        temperature: of these entropies.
        sampling_temperature: of log-probabilities, and of the entropies that a selection decides by.
        logps: whether log-probabilities are needed: for a KL term.
        deciding: whether the loss selects, and needs entropies at the sampling temperature.
    """

    temperature: float
    sampling_temperature: float
    logps: bool = False
    deciding: bool = False

    @staticmethod
    def of(algorithm: Algorithm, sampling_temperature: float) -> "EntropyTerms | None":
        """What an algorithm needs; None where its objective differentiates no entropies."""
        objective, temperature = algorithm.objective, algorithm.objective.entropy_temperature
        if temperature is None:
            return None
        return EntropyTerms(temperature, sampling_temperature, objective.beta > 0, algorithm.selection.inside_loss)


def token_entropies(
    model: Any, head: Any, tokens: Tokens, projected_NT: Tensor, terms: EntropyTerms
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Entropies with gradient at the projected positions, through the model's own forward.

    The entropy of completion token t comes from the position before it. Logits exist for the K projected positions
    only: (K, V), and once more in the backward pass for their gradient.

    Args:
        model: the model, wrapped or not.
        head: the output embeddings of the unwrapped model.
        tokens: N rows.
        projected_NT: (N, T) bool, completion tokens that are needed.
        terms: which numbers, at which temperatures.

    Returns:
        (N, T) log-probabilities with gradient, 0 where not asked for; (N, T) entropies without gradient to decide by,
        or None; (N, T) entropies with gradient. In nats, 0 where not projected; the last one is connected to every
        parameter even if nothing is projected.
    """
    rows = Packed.of(tokens, projected_NT)
    where_NL = torch.cat([rows.projected[:, 1:], torch.zeros_like(rows.projected[:, :1])], dim=1)
    with chosen_positions(head, where_NL):
        logits_KV = model(
            input_ids=rows.input_ids, attention_mask=rows.attention_mask(model), use_cache=False
        ).logits.squeeze(0)
    targets_K = tokens.completion_ids[projected_NT] if terms.logps else None
    values = entropy_and_logps(logits_KV, terms.temperature, targets_K, terms.sampling_temperature)

    def placed(values_K: Tensor) -> Tensor:
        return values_K.new_zeros(projected_NT.shape).masked_scatter(projected_NT, values_K)

    entropies, logps = (placed(values_K) for values_K in values)
    if not terms.deciding:
        return logps, None, entropies
    return logps, placed(token_entropy(logits_KV.detach(), terms.sampling_temperature)), entropies
