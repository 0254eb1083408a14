"""The base path, and the tokens that could have come instead at each of its positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from rlvr.analysis.forking.settings import ForkSettings
from rlvr.analysis.forward import bare
from rlvr.analysis.scoring import Scored, score_completions
from rlvr.errors import UserError
from rlvr.evaluation.requests import Key, sample_seed
from rlvr.sampling.batched import BatchedSampler, Row
from rlvr.sampling.settings import Sampling

Branch = tuple[int, float]
"""A token id and its probability."""


@dataclass(frozen=True)
class BasePath:
    """An answer of L tokens that ended by itself.

    Attributes:
        token_ids: (L,), the end-of-text token included.
        entropies: (L,) nats at temperature 1.
        branches: at each position, the base token first, then those above the threshold, likeliest first.
    """

    token_ids: list[int]
    entropies: list[float]
    branches: list[list[Branch]]


def draw_base(sampler: BatchedSampler, prompt_ids: Sequence[int], settings: ForkSettings, limit: int) -> list[int]:
    """The base answer: the greedy one, or one sample.

    Args:
        sampler: of the model.
        prompt_ids: of the prompt.
        settings: say which, and the seed.
        limit: tokens at most.

    Raises:
        UserError: if it was cut: nobody knows where it would have led.
    """
    greedy = settings.base == "greedy"
    row = Row(0, list(prompt_ids), sample_seed(settings.seed, Key("forks", "base", 0)), limit)
    sampling = Sampling(temperature=0.0 if greedy else settings.temperature, max_tokens=limit)
    for _ in sampler.run([row], sampling):
        pass
    if sampler.reason(row) != "stop":
        other = "--base sampled" if greedy else "another --seed"
        raise UserError(
            f"the base path was cut at {len(row.drawn)} tokens; expected an answer that ends: raise --max-tokens, or "
            f"take {other}"
        )
    return row.drawn


def base_path(model: Any, prompt_ids: Sequence[int], token_ids: Sequence[int], settings: ForkSettings) -> BasePath:
    """Entropies and branches of a base answer.

    Args:
        model: the policy.
        prompt_ids: of the prompt.
        token_ids: of the answer.
        settings: threshold, alternates and temperature.
    """
    top = min(settings.alternates + 1, bare(model).get_output_embeddings().weight.shape[0])

    def score(temperature: float, top: int) -> Scored:
        return next(score_completions(model, [prompt_ids], [token_ids], temperature=temperature, top=top))

    scored = score(settings.temperature, top)
    plain = scored if settings.temperature == 1 else score(1.0, 0)
    branches = [
        branches_of(int(token), exp(float(scored.logprobs[at])), scored.top_ids[at].tolist(),
                    [exp(logprob) for logprob in scored.top_logprobs[at].tolist()], settings)
        for at, token in enumerate(token_ids)
    ]  # fmt: skip
    return BasePath(list(token_ids), [float(value) for value in plain.entropies], branches)


def branches_of(
    base: int, base_prob: float, likeliest: Sequence[int], probs: Sequence[float], settings: ForkSettings
) -> list[Branch]:
    """The branches of one position.

    Args:
        base: the base token, which is a branch whatever its probability.
        base_prob: of it; it may be none of the likeliest.
        likeliest: token ids, likeliest first.
        probs: theirs.
        settings: threshold and alternates.
    """
    others = [
        (token, prob)
        for token, prob in zip(likeliest, probs, strict=True)
        if token != base and prob > settings.threshold
    ]
    return [(base, base_prob), *others[: settings.alternates]]
