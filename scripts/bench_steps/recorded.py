"""Entropies as a sampler would have recorded them: made once, outside every measured step."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlvr.trainer.batch import Recorded
from scripts.bench_steps.planned import PROMPT_TOKENS, Setting, plan_rollouts
from scripts.bench_steps.shapes import make_model

CHUNK = 256
"""Positions whose logits are in memory together."""


def record(setting: Setting, file: str) -> None:
    """Write the entropies and log-probabilities of every completion token under the model's own weights."""
    if setting.device == "cpu":
        torch.set_num_threads(setting.threads)
    planned = plan_rollouts(setting, 0.0)
    model = make_model(setting.shape, setting.device, setting.dtype, PROMPT_TOKENS[1] + setting.cut)
    rows = zip(planned.prompt_ids, planned.completion_ids, strict=True)
    numbers = [_row(model, prompt, completion) for prompt, completion in rows]
    entropies, logps = ([row[index] for row in numbers] for index in (0, 1))
    torch.save({"entropies": entropies, "logps": logps}, Path(file))


@torch.no_grad()
def _row(model: Any, prompt: list[int], completion: list[int]) -> tuple[Tensor, Tensor]:
    """(t,) entropies and log-probabilities in nats, float32."""
    ids = torch.tensor([prompt + completion], device=model.device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
    entropies, chosen = [], []
    for states, targets in zip(hidden.split(CHUNK), ids[0, len(prompt) :].split(CHUNK), strict=True):
        logps = model.get_output_embeddings()(states).float().log_softmax(dim=-1)
        entropies.append(-(logps.exp() * logps).sum(dim=-1))
        chosen.append(logps.gather(1, targets.unsqueeze(1)).squeeze(1))
    return torch.cat(entropies).cpu(), torch.cat(chosen).cpu()


def load_recorded(file: str) -> Recorded:
    """What `record` wrote, as the trainer's sampler keeps it."""
    return Recorded(**torch.load(file))


def inject_recorded(trainer: Any, recorded: Recorded) -> None:
    """Give a trainer the numbers that its own sampler would have recorded with the completions."""
    trainer.sampler.recorded = recorded
