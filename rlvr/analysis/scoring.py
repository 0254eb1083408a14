"""Entropies and log-probabilities of tokens that are given, by any policy."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr.analysis.forward import Head, Ids, check_rows, chunks, flat_ids, head_of, hidden_states, in_order
from rlvr.errors import UserError
from rlvr.maths.entropy import entropy_and_logps


@dataclass(frozen=True)
class Scored:
    """What a policy says of one completion of T tokens, over its whole vocabulary.

    Attributes:
        entropies: (T,) float32, nats, of the distribution that each token was drawn from.
        logprobs: (T,) float32, nats, of the tokens.
        top_ids: (T, K) int32, the most likely tokens, most likely first.
        top_logprobs: (T, K) float32, nats.
    """

    entropies: np.ndarray
    logprobs: np.ndarray
    top_ids: np.ndarray
    top_logprobs: np.ndarray


def score_completions(
    model: Any,
    prompt_ids: Sequence[Ids],
    token_ids: Sequence[Ids],
    *,
    temperature: float = 1.0,
    top: int = 0,
    tokens_per_pass: int = 16384,
) -> Iterator[Scored]:
    """Score completions, in the order given.

    Rows of like length go through the model together; the head works on a chunk of positions at a time, and what
    follows it in float32. Results differ between batches by rounding only.

    Args:
        model: a causal language model; its mode is restored.
        prompt_ids: N prompts, each with a token at least.
        token_ids: N completions; an empty one gives empty arrays.
        temperature: divides the logits of all four results; positive.
        top: K, most likely tokens to give at each position.
        tokens_per_pass: tokens that go through the model at once; memory and speed only.

    Returns:
        One `Scored` a completion.

    Raises:
        ValueError: for unequal numbers of prompts and completions, an empty prompt, a `top` out of range, or a
            temperature that is not positive.
        UserError: for a row that has more tokens than the model has positions.
    """
    check_rows(model, prompt_ids, token_ids)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; expected a positive number")
    if top < 0 or tokens_per_pass < 1:
        raise ValueError(f"top is {top} and tokens_per_pass {tokens_per_pass}; expected at least 0 and 1")
    head: list[Head] = []

    def score(prompts: list[Ids], tokens: list[Ids]) -> list[Scored]:
        head.extend([] if head else [head_of(model, prompts[0])])
        return _score_pass(model, head[0], prompts, tokens, temperature, top)

    return in_order(prompt_ids, token_ids, tokens_per_pass, score)


@torch.no_grad()
def _score_pass(
    model: Any,
    head: Head,
    prompts: Sequence[Ids],
    tokens: Sequence[Ids],
    temperature: float,
    top: int,
) -> list[Scored]:
    hidden_KD = hidden_states(model, prompts, tokens)
    targets_K = flat_ids(tokens)
    parts = [
        _score_chunk(head.logits(hidden_KD[part]), targets_K[part], temperature, top)
        for part in chunks(len(targets_K), head.project.weight.shape[0])
    ]
    nothing = [np.zeros((0, *shape), kind) for shape, kind in (((), "f4"), ((), "f4"), ((top,), "i4"), ((top,), "f4"))]
    whole = [np.concatenate(arrays) for arrays in zip(nothing, *parts, strict=True)]
    ends = np.cumsum([len(row) for row in tokens])[:-1]
    return [Scored(*row) for row in zip(*(np.split(array, ends) for array in whole), strict=True)]


def _score_chunk(logits_KV: Tensor, targets_K: Tensor, temperature: float, top: int) -> tuple[np.ndarray, ...]:
    """Entropies (K,), log-probabilities (K,), and ids and log-probabilities of the most likely tokens (K, top)."""
    if top > logits_KV.shape[1]:
        raise ValueError(f"top is {top}, but the vocabulary has {logits_KV.shape[1]} tokens")
    targets_K = targets_K.to(logits_KV.device)
    entropies_K, logps_K = entropy_and_logps(logits_KV, temperature, targets_K, temperature)
    best = logits_KV.topk(top, dim=1)
    normaliser_K = (logits_KV / temperature).logsumexp(dim=1, keepdim=True) if top else 0.0
    tops = (best.indices.int(), best.values / temperature - normaliser_K)
    return tuple(values.cpu().numpy() for values in (entropies_K, logps_K, *tops))


def open_policy(place: str) -> tuple[Any, Any]:
    """A model, ready to score, and its tokenizer.

    Args:
        place: `builtin`, a folder that `from_pretrained` loads, a run folder (its newest complete checkpoint), or a
            hub id. A GPU is used if there is one, and the number format is the checkpoint's own.

    Returns:
        (model in evaluation mode, tokenizer).

    Raises:
        UserError: if there is no such model, or several.
    """
    from rlvr.config.evaluation import EvaluationConfig
    from rlvr.evaluation.checkpoints import find_checkpoints, is_run
    from rlvr.evaluation.opening import open_backend

    found = find_checkpoints([place])
    if len(found) > 1 and not is_run(Path(place).expanduser()):
        names = ", ".join(one.label for one in found[:3])
        raise UserError(f"{place} stands for {len(found)} models ({names}, ...); expected one")
    backend: Any = open_backend(EvaluationConfig(model=[place]), found[-1])
    return backend.model, backend.tokenizer


def prompt_ids_of(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a record's `prompt`, as the run asked it.

    A text gets the tokenizer's special tokens; the JSON of chat messages is put through the chat template, with the
    opening of an answer. Settings for the template that a run gives to TRL (`trl.chat_template_kwargs`) stand in no
    record and are not known here.

    Args:
        tokenizer: of the policy.
        prompt: text, or the JSON of the messages.

    Raises:
        UserError: if the prompt is a chat, and the tokenizer has no chat template; or it has no token.
    """
    from rlvr.evaluation.encoding import render_chat

    messages = _chat(prompt)
    if messages is None:
        ids = tokenizer(prompt)["input_ids"]
    else:
        ids = tokenizer(render_chat(tokenizer, messages), add_special_tokens=False)["input_ids"]
    if not ids:
        raise UserError(f"the prompt {prompt[:60]!r} has no tokens; expected one at least")
    return list(ids)


def _chat(prompt: str) -> list[dict[str, Any]] | None:
    """The messages of a chat that was recorded as JSON; None for a text."""
    if not prompt.startswith("[{"):
        return None
    try:
        found = json.loads(prompt)
    except ValueError:
        return None
    is_chat = all(isinstance(message, dict) and {"role", "content"} <= message.keys() for message in found)
    return found if is_chat else None
