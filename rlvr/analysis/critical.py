"""Critical tokens by contrast: what a policy trained on wrong answers likes more than one trained on right answers.

Contrastive estimation of arXiv 2411.19943, equation 1.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr.analysis.forward import Head, Ids, check_rows, chunks, flat_ids, head_of, hidden_states, in_order
from rlvr.errors import UserError

FLOOR = -1e4
"""Nats; a log-probability below it counts as it, so that a token that neither policy allows is no infinity less one."""


def contrastive(positive_KV: Tensor, negative_KV: Tensor, targets_K: Tensor, beta: float = 1.0) -> Tensor:
    """s = softmax((1 + beta) z_p - beta z_n)[y], the same as p_p^(1 + beta) / p_n^beta, normalised.

    Args:
        positive_KV: (K, V) logits of the policy of right answers.
        negative_KV: (K, V) logits of the policy of wrong answers, over the same vocabulary.
        targets_K: (K,) int64, the tokens that stood there.
        beta: strength of the contrast, 0 or more.

    Returns:
        (K,) float32 in [0, 1]; low is critical.
    """
    positive = torch.log_softmax(positive_KV.float(), dim=1).clamp(min=FLOOR)
    negative = torch.log_softmax(negative_KV.float(), dim=1).clamp(min=FLOOR)
    scores = torch.log_softmax((1 + beta) * positive - beta * negative, dim=1)
    return scores.gather(1, targets_K.unsqueeze(1)).squeeze(1).exp()


def critical_scores(
    positive: Any,
    negative: Any,
    prompt_ids: Sequence[Ids],
    token_ids: Sequence[Ids],
    *,
    beta: float = 1.0,
    tokens_per_pass: int = 16384,
) -> Iterator[np.ndarray]:
    """Contrastive scores of completions, in the order given.

    Args:
        positive: model of right answers.
        negative: model of wrong answers, with the same vocabulary.
        prompt_ids: N prompts, each with a token at least.
        token_ids: N completions.
        beta: strength of the contrast, 0 or more.
        tokens_per_pass: tokens that go through a model at once; memory and speed only.

    Returns:
        (T,) float32 a completion.

    Raises:
        ValueError: for a beta below 0, unequal numbers of prompts and completions, or an empty prompt.
        UserError: for models of different vocabularies, or a row that is too long for one of them.
    """
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta is {beta}; expected 0 or more")
    models = (positive, negative)
    for model in models:
        check_rows(model, prompt_ids, token_ids)
    heads: list[Head] = []

    def score(prompts: list[Ids], tokens: list[Ids]) -> list[np.ndarray]:
        heads.extend([] if heads else [head_of(model, prompts[0]) for model in models])
        sizes = [head.project.weight.shape[0] for head in heads]
        if sizes[0] != sizes[1]:
            raise UserError(f"the policies know {sizes[0]} and {sizes[1]} tokens; expected one vocabulary for both")
        return _score_pass(models, heads, prompts, tokens, beta)

    return in_order(prompt_ids, token_ids, tokens_per_pass, score)


@torch.no_grad()
def _score_pass(
    models: tuple[Any, Any],
    heads: Sequence[Head],
    prompts: Sequence[Ids],
    tokens: Sequence[Ids],
    beta: float,
) -> list[np.ndarray]:
    states = [hidden_states(model, prompts, tokens) for model in models]
    targets_K = flat_ids(tokens)
    parts = [np.zeros(0, np.float32)]
    for part in chunks(len(targets_K), heads[0].project.weight.shape[0]):
        own, other = (head.logits(hidden_KD[part]) for head, hidden_KD in zip(heads, states, strict=True))
        scores = contrastive(own, other.to(own.device), targets_K[part].to(own.device), beta)
        parts.append(scores.cpu().numpy())
    return np.split(np.concatenate(parts), np.cumsum([len(row) for row in tokens])[:-1])
