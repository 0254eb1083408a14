"""Turns a rollout batch into the rows of its record."""

import json
from pathlib import Path
from typing import Any

from rlvr.rewards.adapter import RewardFunction, completion_text, graders
from rlvr.rewards.verdict import Verdict
from rlvr.rollouts.record import write_record
from rlvr.rollouts.stream import prompt_text
from rlvr.trainer.batch import RolloutBatch


class Recorder:
    """Writes every n-th rollout batch to disk; called on the main process, with that process's rows.

    Args:
        folder: `rollouts/` of the run.
        every: rollout batches between records; the first is always written.
        max_completions: rows in a file.
        rewards: the run's rewards, in order; the verdicts of the first that grades are recorded.
    """

    def __init__(self, folder: Path, every: int, max_completions: int, rewards: list[RewardFunction]) -> None:
        self.folder, self.every, self.max_completions, self.rewards = folder, every, max_completions, rewards

    def __call__(self, trainer: Any, batch: RolloutBatch, prompts: list[dict[str, Any]]) -> None:
        """Record this batch if its turn has come."""
        if (trainer.rollouts_made - 1) % self.every:
            return
        rows = [self._row(trainer, batch, prompts, index) for index in range(min(self.max_completions, len(prompts)))]
        write_record(rows, self.folder, trainer.state.global_step + 1)

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
