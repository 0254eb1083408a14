"""Turns a rollout batch into the rows of its record."""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlvr.errors import UserError
from rlvr.rewards.adapter import RewardFunction, completion_text, graders
from rlvr.rewards.verdict import Verdict
from rlvr.rollouts.record import write_record
from rlvr.rollouts.stream import prompt_text
from rlvr.trainer.batch import RolloutBatch, Slice, ignore
from rlvr.trainer.forward import Tokens

LOG = logging.getLogger("rlvr")

Scorer = Callable[..., Iterable[Any]]
"""`rlvr.analysis.scoring.score_completions`."""


class Recorder:
    """Writes every n-th rollout batch to disk; called on the main process, with that process's rows.

    Where more than one update is made from a batch, its file is written a second time after the last one, with the
    importance ratios that the updates saw.

    Args:
        folder: `rollouts/` of the run.
        every: rollout batches between records; the first is always written.
        max_completions: rows in a file.
        rewards: the run's rewards, in order; the verdicts of the first that grades are recorded.
        alternatives: likeliest tokens to note at each place; 0 for none.
        scorer: what finds them, with the policy in one piece; needed where there are any.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        max_completions: int,
        rewards: list[RewardFunction],
        alternatives: int = 0,
        scorer: Scorer | None = None,
    ) -> None:
        self.folder, self.every, self.max_completions, self.rewards = folder, every, max_completions, rewards
        self.alternatives, self.scorer = alternatives, scorer

    def __call__(self, trainer: Any, batch: RolloutBatch, prompts: list[dict[str, Any]]) -> None:
        """Record this batch if its turn has come."""
        trainer.on_slice = ignore
        if (trainer.rollouts_made - 1) % self.every:
            return
        count = min(self.max_completions, len(prompts))
        rows = [self._row(trainer, batch, prompts, index) for index in range(count)]
        values = trainer.algorithm.advantage.token_values(batch.sampled.rollouts)
        if values is not None:
            for row, numbers in zip(rows, values[:count], strict=True):
                row["ktae"] = numbers[: len(row["token_ids"])].tolist()
        if self.alternatives and self.scorer is not None:
            self._add_alternatives(trainer, batch.sampled.tokens, rows)
        step = trainer.state.global_step + 1
        write_record(rows, self.folder, step)
        if not trainer.on_policy:
            trainer.on_slice = _Ratios(trainer, rows, lambda: write_record(rows, self.folder, step))

    def _add_alternatives(self, trainer: Any, tokens: Tokens, rows: list[dict[str, Any]]) -> None:
        """The likeliest tokens at each place; a model whose head nobody knows is said once, and trains without them."""
        assert self.scorer is not None
        prompts = [tokens.prompt_ids[index][tokens.prompt_mask[index].bool()].tolist() for index in range(len(rows))]
        model = trainer.accelerator.unwrap_model(trainer.model)
        most = min(self.alternatives, model.config.get_text_config().vocab_size)
        given = [row["token_ids"] for row in rows]
        try:
            found = list(self.scorer(model, prompts, given, temperature=trainer.temperature, top=most))
        except UserError as error:
            LOG.warning(f"records go without the likeliest tokens: {error}; set rollouts.record.alternatives=0")
            self.alternatives = 0
            return
        for row, scored in zip(rows, found, strict=True):
            row["top_ids"], row["top_logprobs"] = scored.top_ids.tolist(), scored.top_logprobs.tolist()

    def _row(self, trainer: Any, batch: RolloutBatch, prompts: list[dict[str, Any]], index: int) -> dict[str, Any]:
        sampled, scores, prompt = batch.sampled, batch.scores, prompts[index]
        length = int(sampled.tokens.completion_mask[index].sum())
        global_row = int(sampled.global_rows(trainer.ranks)[index])
        scored = bool(scores.scored[index])
        verdicts: list[Verdict] = [one for function in graders(self.rewards) for one in function.reward.verdicts]
        per_function = trainer.rewards_per_func[trainer.ranks.index * len(sampled.truncated) + index].tolist()
        advantages = batch.advantages[index].expand(sampled.tokens.completion_mask.shape[1])
        row = {
            "step": trainer.state.global_step + 1,
            "rollout_step": trainer.rollouts_made,
            "row": global_row,
            "group": global_row // trainer.sizes.num_generations,
            "prompt_id": prompt.get("prompt_id", ""),
            "prompt": prompt_text(prompt["prompt"]),
            "completion": completion_text(trainer.completions[index]),
            "gold": _gold_text(prompt.get("gold", "")),
            "reward": float(sampled.rollouts.rewards[index]),
            "rewards": dict(zip(trainer.reward_func_names, per_function, strict=True)),
            "correct": verdicts[index].correct if verdicts else None,
            "status": verdicts[index].status if verdicts else None,
            "truncated": bool(sampled.truncated[index]),
            "token_ids": sampled.tokens.completion_ids[index, :length].tolist(),
            # A row that neither votes nor trains was not scored: no numbers, rather than zeros that look like some.
            "entropies": scores.entropies[index, :length].tolist() if scored else None,
            "logprobs": scores.logps[index, :length].tolist() if scored else None,
            "kept": batch.kept[index, :length].tolist(),
            "advantages": advantages[:length].tolist(),
        }
        if scores.ref_logps is not None:
            row["ref_logprobs"] = scores.ref_logps[index, :length].tolist() if scored else None
        return row


def _gold_text(gold: Any) -> str:
    """A gold answer as it is; several accepted forms as a JSON list."""
    return gold if isinstance(gold, str) else json.dumps(list(gold), ensure_ascii=False)


class _Ratios:
    """Importance ratios of recorded rows, as the gradient passes see them; the last pass of a token counts.

    Args:
        trainer: whose slices these are.
        rows: of the record; each gets the column `ratio` at the end, null where no gradient pass came.
        done: called after the last slice that is made from the batch.
    """

    def __init__(self, trainer: Any, rows: list[dict[str, Any]], done: Callable[[], Any]) -> None:
        self.trainer, self.rows, self.done = trainer, rows, done
        self.seen = {row["row"]: torch.full((len(row["token_ids"]),), torch.nan) for row in rows}

    def __call__(self, part: Slice, logps: Tensor) -> None:
        """Note a slice: log-probabilities (N, T) of the policy that is updated."""
        if part.old_logps is not None:
            ratios = torch.where(part.projected, (logps - part.old_logps).exp(), torch.nan).cpu()
            for number, values in zip(part.rows.tolist(), ratios, strict=True):
                if number in self.seen:
                    own = self.seen[number]
                    values = values[: len(own)]
                    own[: len(values)] = torch.where(values.isnan(), own[: len(values)], values)
        sizes = self.trainer.sizes
        if (self.trainer._step + 1) % (sizes.slices_per_rollout * sizes.num_iterations) == 0:
            for row in self.rows:
                row["ratio"] = [None if value != value else value for value in self.seen[row["row"]].tolist()]
            self.done()
            self.trainer.on_slice = ignore
