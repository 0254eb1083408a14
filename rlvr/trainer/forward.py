"""Log-probabilities and entropies of completions, on as few positions as needed: the sparse LM head."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import trl.trainer.utils as trl_utils
from torch import Tensor

from rlvr.maths.masked import last_true

CPU_COLUMNS = 1024
"""Vocabulary entries that the head looks at together on a CPU. With TRL's 4096 tokens a tile is then small enough for
the allocator to keep it: without gradient twice as fast as 8 192, where every tile is given back and mapped anew."""

DUMMY_TOKENS = 2
"""The smallest input TRL's head accepts: it scores the second token from the first."""


@contextmanager
def compacted_head(vocabulary: int, on_cpu: bool) -> Iterator[None]:
    """Let TRL's fused head project labelled positions only, on the CPU too.

    TRL does so only where `trl.trainer.utils._use_triton(device)` holds. The name of the same function in
    `trl.kernels.chunked_logprob` stays as it is, because that one chooses the Triton kernels. The head's buffer is as
    wide as its vocabulary chunk: cut to the vocabulary, a small one does not allocate and stride over 32 768 columns.
    """
    use_triton, chunk = trl_utils._use_triton, trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
    trl_utils._use_triton = lambda device: device.type == "cpu" or use_triton(device)
    trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = min(CPU_COLUMNS if on_cpu else chunk, vocabulary)
    try:
        yield
    finally:
        trl_utils._use_triton, trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = use_triton, chunk


@dataclass(frozen=True)
class Tokens:
    """Prompts, left-padded, and completions, right-padded, of N rows.

    Attributes:
        prompt_ids: (N, Tp) int64.
        prompt_mask: (N, Tp) 1 on prompt tokens.
        completion_ids: (N, T) int64.
        completion_mask: (N, T) 1 on sampled tokens.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor

    def rows(self, index: Tensor) -> "Tokens":
        """Some of the rows, in the order of `index` (n,)."""
        return Tokens(
            self.prompt_ids[index], self.prompt_mask[index], self.completion_ids[index], self.completion_mask[index]
        )

    def trimmed(self, columns: int) -> "Tokens":
        """With the first `columns` completion tokens."""
        return Tokens(
            self.prompt_ids, self.prompt_mask, self.completion_ids[:, :columns], self.completion_mask[:, :columns]
        )

    @staticmethod
    def dummy(device: torch.device) -> "Tokens":
        """One row of two real tokens, for a rank that has nothing to do in a pass that the others make."""
        ids = torch.zeros((1, DUMMY_TOKENS // 2), dtype=torch.int64, device=device)
        return Tokens(ids, torch.ones_like(ids), ids, torch.ones_like(ids))


@dataclass(frozen=True)
class Packed:
    """N rows flush left: a prompt, its completion up to the last projected token, and padding on the right only.

    No token sees what stands to its right, so the padding needs no mask, and a row has the positions that it had while
    it was sampled. A slice is as wide as its longest row, not as its longest prompt and its longest completion.

    Attributes:
        input_ids: (N, L) int64.
        mask: (N, L) bool, true on the row's own tokens.
        projected: (N, L) bool, the tokens to score.
        places: (N, T) int64, where completion token t stands among the scores (N, L - 1), which begin with the second
            token.
    """

    input_ids: Tensor
    mask: Tensor
    projected: Tensor
    places: Tensor

    @staticmethod
    def of(tokens: Tokens, projected_NT: Tensor) -> "Packed":
        """Pack rows for a pass that scores the projected completion tokens."""
        prompt_lengths = tokens.prompt_mask.sum(dim=1, keepdim=True)
        lengths = prompt_lengths + last_true(projected_NT).unsqueeze(1).clamp(min=1)
        columns = torch.arange(int(lengths.max()), device=lengths.device).unsqueeze(0)
        both = torch.cat([tokens.prompt_ids, tokens.completion_ids], dim=1)
        source = columns + (tokens.prompt_ids.shape[1] - prompt_lengths)
        inside = columns - prompt_lengths
        width = projected_NT.shape[1]
        wanted = projected_NT.gather(1, inside.clamp(0, width - 1)) & (inside >= 0) & (inside < width)
        places = prompt_lengths - 1 + torch.arange(width, device=lengths.device)
        return Packed(
            both.gather(1, source.clamp(max=both.shape[1] - 1)), columns < lengths, wanted,
            places.clamp(max=columns.shape[1] - 2),
        )  # fmt: skip

    def unpack(self, scores: Tensor, projected_NT: Tensor) -> Tensor:
        """(N, L - 1) scores as (N, T), 0 where not projected; connected to the scores even if nothing is."""
        return torch.where(projected_NT, scores.gather(1, self.places), 0.0)

    def attention_mask(self, model: Any) -> Tensor | None:
        """The mask that saves work: flash attention leaves padding out, every other kernel is faster without one."""
        config = getattr(getattr(model, "module", model), "config", None)
        return self.mask.long() if "flash" in (getattr(config, "_attn_implementation", None) or "") else None


def token_logps(model: Any, tokens: Tokens, projected_NT: Tensor) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and entropies at the projected positions, through the model's own forward.

    Args:
        model: a model with TRL's fused LM head, wrapped or not; logits are divided by the sampling temperature.
        tokens: N rows.
        projected_NT: (N, T) bool, completion tokens to score.

    Returns:
        (N, T) log-probabilities (nats), and (N, T) entropies (nats) or None where the head has none (a reference
        model's); 0 where not projected, and connected to every parameter even if nothing is projected.
    """
    rows = Packed.of(tokens, projected_NT)
    labels = rows.input_ids.masked_fill(~rows.projected, -100)
    output = model(
        input_ids=rows.input_ids, attention_mask=rows.attention_mask(model), labels=labels, fused_lm_head=True
    )
    entropies = None if output.entropy is None else rows.unpack(output.entropy, projected_NT)
    return rows.unpack(output.log_probs, projected_NT), entropies
