"""What makes `rlvr`'s step cheap, switched off one at a time; and TRL's head as it is on a GPU."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlvr.trainer import decide, scoring, seam
from rlvr.trainer.forward import Tokens, compacted_head
from scripts.bench_steps.planned import GPU_HEAD, HEAD, PADDING


@contextmanager
def switched(names: Sequence[str], trainer: Any) -> Iterator[None]:
    """Switch things off while a trainer runs, and on again.

    Args:
        names: keys of `SWITCHES`.
        trainer: TRL's for `gpu head`, else ours.
    """
    with ExitStack() as stack:
        if PADDING in names:
            stack.enter_context(_replaced(seam, "token_logps", _padded_to(trainer.planned)))
            stack.enter_context(_replaced(decide, "plan_slices", _even_slices))
            stack.enter_context(_replaced(scoring, "plan_slices", _even_slices))
        if HEAD in names:
            stack.enter_context(_replaced(seam, "compacted_head", lambda *_: nullcontext()))
        if GPU_HEAD in names:
            stack.enter_context(compacted_head(trainer.model.config.vocab_size, trainer.args.device.type == "cpu"))
        yield


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _even_slices(rows: Sequence[int], lengths: Sequence[int], slices: int, most: int) -> list[list[int]]:
    return [list(rows[len(rows) * index // slices : len(rows) * (index + 1) // slices]) for index in range(slices)]


def _padded_to(planned: Any) -> Any:
    """A forward of rows as wide as the longest prompt and the longest completion of all, with a mask: TRL's."""
    prompt_width, width = (max(map(len, ids)) for ids in (planned.prompt_ids, planned.completion_ids))

    def token_logps(model: Any, tokens: Tokens, projected: Tensor) -> tuple[Tensor, Tensor | None]:
        left, right = prompt_width - tokens.prompt_ids.shape[1], width - tokens.completion_ids.shape[1]
        input_ids = pad(torch.cat([tokens.prompt_ids, tokens.completion_ids], dim=1), (left, right))
        mask = pad(torch.cat([tokens.prompt_mask, tokens.completion_mask], dim=1), (left, right))
        labels = input_ids.masked_fill(~pad(projected, (prompt_width, right)), -100)
        output = model(input_ids=input_ids, attention_mask=mask, labels=labels, fused_lm_head=True)
        own = slice(-width, projected.shape[1] - width or None)
        return output.log_probs[:, own], None if output.entropy is None else output.entropy[:, own]

    return token_logps
