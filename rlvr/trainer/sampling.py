"""Rollouts from transformers: the sampler of evaluation in the place of TRL's `generate`, with what it recorded."""

from dataclasses import dataclass, field
from typing import Any

import torch
from trl import GRPOConfig

from rlvr.errors import UserError
from rlvr.maths.order import random_keys
from rlvr.sampling.batched import BatchedSampler, Row
from rlvr.sampling.settings import Sampling
from rlvr.trainer.batch import Recorded

UNKNOWN_TO_THE_SAMPLER = {
    "use_vllm": False,
    "use_transformers_continuous_batching": False,
    "generation_kwargs": None,
    "min_p": None,
    "repetition_penalty": 1.0,
    "cache_implementation": None,
    "ds3_gather_for_generation": True,
}
"""Fields of `GRPOConfig` at the values with which the sampler does what they ask; otherwise TRL generates."""


def sampler_of(trainer: Any, record: bool) -> "RolloutSampler | None":
    """The sampler of a run; None where another engine samples, or TRL's arguments ask for what only TRL does.

    Args:
        trainer: the trainer.
        record: whether what is recorded takes the place of the pass without gradient.
    """
    args: GRPOConfig = trainer.args
    if any(getattr(args, name) != value for name, value in UNKNOWN_TO_THE_SAMPLER.items()):
        return None
    return RolloutSampler(Sampling(args.temperature, args.top_p, args.top_k or 0, args.max_completion_length), record)


@dataclass
class RolloutSampler:
    """What TRL calls to get completions: its `rollout_func`.

    A completion depends on the run's seed, on the number of its prompt in the stream and on its place in the group:
    not on the batch, on the number of ranks, or on a generator's state.

    Attributes:
        sampling: temperature, cuts and length.
        record: whether to keep entropies and log-probabilities.
        first: number in the stream of the first prompt of this rank's next rows.
        recorded: of the last rows, in their order.
    """

    sampling: Sampling
    record: bool
    first: int = 0
    recorded: Recorded | None = field(default=None, repr=False)

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """Draw one completion for each prompt; each stands there once per completion of its group."""
        prompt_ids = trainer._tokenize_prompts(prompts)[0]
        seeds = self.seeds(trainer.args.seed, len(prompts), trainer.sizes.num_generations)
        with trainer.generating() as policy, trainer.accelerator.autocast():
            was_training = policy.training
            policy.eval()
            try:
                rows = self._draw(policy, trainer.processing_class, prompt_ids, seeds)
            finally:
                policy.train(was_training)
        if self.record:
            self.recorded = Recorded(
                [torch.tensor(row.entropies) for row in rows], [torch.tensor(row.logps) for row in rows]
            )
        return {"prompt_ids": prompt_ids, "completion_ids": [row.drawn for row in rows], "logprobs": None}

    def take_recorded(self) -> Recorded | None:
        """What was recorded of the last rows, once."""
        recorded, self.recorded = self.recorded, None
        return recorded

    def seeds(self, seed: int, rows: int, group_size: int) -> list[int]:
        """The seed of each row: a hash of the run's seed, the prompt's number and the place in the group."""
        index = torch.arange(rows)
        return random_keys(seed, 0, self.first + index // group_size, index % group_size).tolist()

    def _draw(self, policy: Any, tokenizer: Any, prompt_ids: list[list[int]], seeds: list[int]) -> list[Row]:
        sampler = BatchedSampler(policy, tokenizer, len(prompt_ids), record=self.record)
        rows = []
        for index, (ids, seed) in enumerate(zip(prompt_ids, seeds, strict=True)):
            room = sampler.room(ids, self.sampling.max_tokens)
            if room < 1:
                raise UserError(
                    f"a prompt has {len(ids)} tokens, but the model reads {sampler.positions} at most; leave it out "
                    "of the data"
                )
            rows.append(Row(index, list(ids), seed, room))
        for _ in sampler.run(rows, self.sampling):
            pass
        return rows
