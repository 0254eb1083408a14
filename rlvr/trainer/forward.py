"""Log-probabilities and entropies of completions, on as few positions as needed: the sparse LM head."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import trl.trainer.utils as trl_utils
from torch import Tensor

from rlvr.maths.masked import last_true

DUMMY_TOKENS = 2
"""The smallest input TRL's head accepts: it scores the second token from the first."""


@contextmanager
def compacted_head(vocabulary: int) -> Iterator[None]:
    """Let TRL's fused head project labelled positions only, on the CPU too.

    TRL does so only where `trl.trainer.utils._use_triton(device)` holds. The name of the same function in
    `trl.kernels.chunked_logprob` stays as it is, because that one chooses the Triton kernels. The head's buffer is as
    wide as its vocabulary chunk: cut to the vocabulary, a small one does not allocate and stride over 32 768 columns.
    """
    use_triton, chunk = trl_utils._use_triton, trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
    trl_utils._use_triton = lambda device: device.type == "cpu" or use_triton(device)
    trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = min(chunk, vocabulary)
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

    def trimmed(self, left: bool, columns: int) -> "Tokens":
        """Without the padding all rows share on the left, and with the first `columns` completion tokens."""
        start = self.prompt_ids.shape[1] - int(last_true(self.prompt_mask.bool().flip(1)).max()) if left else 0
        return Tokens(
            self.prompt_ids[:, start:],
            self.prompt_mask[:, start:],
            self.completion_ids[:, :columns],
            self.completion_mask[:, :columns],
        )

    @staticmethod
    def dummy(device: torch.device) -> "Tokens":
        """One row of two real tokens, for a rank that has nothing to do in a pass that the others make."""
        ids = torch.zeros((1, DUMMY_TOKENS // 2), dtype=torch.int64, device=device)
        return Tokens(ids, torch.ones_like(ids), ids, torch.ones_like(ids))


def positions_are_relative(config: Any) -> bool:
    """Whether shifting a row changes nothing: rotary positions. Learned absolute ones would (0.35 nats on GPT-2)."""
    text = config.get_text_config()
    return any(getattr(text, name, None) is not None for name in ("rope_parameters", "rope_theta", "rope_scaling"))


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
    input_ids = torch.cat([tokens.prompt_ids, tokens.completion_ids], dim=1)
    attention_mask = torch.cat([tokens.prompt_mask, tokens.completion_mask], dim=1)
    scored = torch.cat([torch.zeros_like(tokens.prompt_mask, dtype=torch.bool), projected_NT], dim=1)
    labels = input_ids.masked_fill(~scored, -100)
    output = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=True)
    width = tokens.completion_ids.shape[1]
    entropies = None if output.entropy is None else output.entropy[:, -width:]
    return output.log_probs[:, -width:], entropies
