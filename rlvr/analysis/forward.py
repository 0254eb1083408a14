"""Logits of given completions, a chunk of positions at a time: the LM head never sees a whole row at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rlvr.errors import UserError

T = TypeVar("T")

Ids = Sequence[int] | np.ndarray
"""Token ids of one row, a list or an array."""

CHUNK_ELEMENTS = 1 << 24
"""Logits that exist at once (64 MiB in float32), and a few times that beside them."""

WINDOW_PASSES = 32
"""Passes whose rows are sorted by length together, so that results of no more rows wait to be given in order."""

PROBE_TOKENS = 8
PROBE_ERROR = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Largest difference, beside 1 + |logit|, to the model's own logits; 0.05 in shorter number formats."""


def bare(model: Any) -> Any:
    """The model under an adapter's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@dataclass(frozen=True)
class Head:
    """The last layer of a model, and what the model does to its logits.

    Attributes:
        project: the output embeddings.
        scale: what logits are multiplied by (Cohere, Granite).
        softcap: c of c * tanh(logit / c) (Gemma); None for none.
    """

    project: Any
    scale: float
    softcap: float | None

    def logits(self, hidden_KD: Tensor) -> Tensor:
        """(K, V) float32 logits of (K, D) hidden states."""
        logits = self.project(hidden_KD.to(self.project.weight.device)).float() * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The model without dropout; its mode is restored."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def head_of(model: Any, token_ids: Ids) -> Head:
    """The head of a model, compared with the model's own logits on a few tokens.

    Args:
        model: a causal language model of transformers.
        token_ids: any tokens of its vocabulary, at least one.

    Raises:
        UserError: if the model makes its logits in another way.
    """
    under = bare(model)
    config = under.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    head = Head(under.get_output_embeddings(), scale, getattr(config, "final_logit_softcapping", None))
    ids = torch.tensor([list(token_ids[:PROBE_TOKENS])], device=model.device)
    with _evaluating(model):
        own = model(input_ids=ids, use_cache=False).logits[0].float()
        ours = head.logits(_backbone(model, ids)[0]).to(own.device)
    error = float(((own - ours).abs() / (1 + own.abs())).max())
    if not error <= PROBE_ERROR.get(under.dtype, 0.05):
        raise UserError(
            f"the head of {type(under).__name__} alone gives other logits than the model (by {error:.2g}); expected "
            "a model whose logits are its output embeddings of the last hidden state"
        )
    return head


def _backbone(model: Any, ids: Tensor) -> Tensor:
    """(N, L, D) last hidden states."""
    return bare(model).base_model(input_ids=ids, use_cache=False).last_hidden_state


def flat_ids(rows: Sequence[Ids]) -> Tensor:
    """Token ids of rows, one after another, int64."""
    return torch.from_numpy(np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]))


@torch.no_grad()
def hidden_states(model: Any, prompts: Sequence[Ids], completions: Sequence[Ids]) -> Tensor:
    """Hidden states that predict each completion token, all rows in one pass.

    Rows stand flush left: no token sees what is to its right, so padding there needs no mask, and every token has the
    position that it had while it was sampled.

    Args:
        model: a causal language model; its mode is restored.
        prompts: N prompts, each with a token at least.
        completions: N completions.

    Returns:
        (K, D), K the completion tokens of all rows, row after row.
    """
    width = max(len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True))
    ids = torch.zeros((len(prompts), width), dtype=torch.int64)
    predicts = torch.zeros((len(prompts), width), dtype=torch.bool)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(completion)
        ids[row, :end] = flat_ids([prompt, completion])
        predicts[row, len(prompt) - 1 : end - 1] = True
    vocabulary = bare(model).get_input_embeddings().weight.shape[0]
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        raise UserError(
            f"a row has the token {int(ids.max())}, but the model knows {vocabulary}; expected tokens of its tokenizer"
        )
    with _evaluating(model):
        states = _backbone(model, ids.to(model.device))
    return states[predicts.to(states.device)]


def chunks(positions: int, vocabulary: int) -> Iterator[slice]:
    """Parts of K positions whose logits may exist at once."""
    rows = max(1, CHUNK_ELEMENTS // vocabulary)
    return (slice(start, min(start + rows, positions)) for start in range(0, positions, rows))


def passes(lengths: Sequence[int], tokens_per_pass: int) -> list[list[int]]:
    """Rows that go through the model together: of like length, so that little is padding.

    Args:
        lengths: tokens of each row.
        tokens_per_pass: tokens of a pass, padding counted; a row that is longer has a pass of its own.

    Returns:
        Lists of row indices; each row once.
    """
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if found and lengths[found[-1][0]] * (len(found[-1]) + 1) <= tokens_per_pass:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def in_order(
    prompt_ids: Sequence[Ids],
    token_ids: Sequence[Ids],
    tokens_per_pass: int,
    score: Callable[[list[Ids], list[Ids]], list[T]],
) -> Iterator[T]:
    """Score rows in passes of like length, and give the results in the order of the rows.

    Args:
        prompt_ids: N prompts.
        token_ids: N completions.
        tokens_per_pass: see `passes`.
        score: makes one pass: prompts and completions -> a result a row.
    """
    lengths = [len(prompt) + len(tokens) for prompt, tokens in zip(prompt_ids, token_ids, strict=True)]
    for start, end in _windows(lengths, WINDOW_PASSES * tokens_per_pass):
        found: dict[int, T] = {}
        for rows in passes(lengths[start:end], tokens_per_pass):
            parts = score([prompt_ids[start + row] for row in rows], [token_ids[start + row] for row in rows])
            found.update(zip(rows, parts, strict=True))
        yield from (found[row] for row in range(end - start))


def _windows(lengths: Sequence[int], tokens: int) -> Iterator[tuple[int, int]]:
    """Neighbouring rows of at most so many tokens together, and one row at least."""
    start, filled = 0, 0
    for row, length in enumerate(lengths):
        if row > start and filled + length > tokens:
            yield start, row
            start, filled = row, 0
        filled += length
    if lengths:
        yield start, len(lengths)


def check_rows(model: Any, prompts: Sequence[Ids], completions: Sequence[Ids]) -> None:
    """Refuse rows that cannot be scored.

    Raises:
        ValueError: for unequal numbers of prompts and completions, or a prompt without a token.
        UserError: for a row that has more tokens than the model has positions.
    """
    if len(prompts) != len(completions):
        raise ValueError(f"{len(prompts)} prompts and {len(completions)} completions; expected as many of each")
    if not all(map(len, prompts)):
        raise ValueError("a prompt has no token; expected one at least, since it predicts the first of the completion")
    positions = getattr(bare(model).config.get_text_config(), "max_position_embeddings", None)
    longest = max((len(prompt) + len(rest) for prompt, rest in zip(prompts, completions, strict=True)), default=0)
    if positions is not None and longest > positions:
        raise UserError(
            f"a prompt and its completion have {longest} tokens, but the model reads {positions} at most; score them "
            "with a model of more positions"
        )
