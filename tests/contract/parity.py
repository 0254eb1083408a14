"""TRL's loss and ours on the same rows: one gradient each, summed over slices and averaged over ranks."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from trl import GRPOConfig, GRPOTrainer

from rlvr.maths.rollouts import Rollouts
from rlvr.objectives.clipped import Clipped
from rlvr.selection.all_tokens import AllTokens
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import Correction, Ranks, Sampled, Scores
from rlvr.trainer.forward import Tokens
from rlvr.trainer.loss import cut_slice
from rlvr.trainer.seam import RLVRTrainer
from tests.maths.test_importance import trl_weights

P, G, T, PROMPT, VOCABULARY = 4, 4, 10, 6, 23
SAMPLER_CLIP = 1.5
REDUCTIONS = {"dapo": "token_mean", "grpo": "sequence_mean", "dr_grpo": "constant", "bnpo": "token_mean"}


def config(out: Path, updates: int, micro: int, ranks: int, **changes: Any) -> GRPOConfig:
    """The same sizes for both trainers: off policy, since with a ratio of 1 a broken clip passes."""
    rows = P * G // (ranks * updates)
    settings: dict[str, Any] = {
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "num_generations": G, "num_iterations": 2,
        "per_device_train_batch_size": micro, "gradient_accumulation_steps": rows // micro,
        "steps_per_generation": updates * rows // micro, "max_completion_length": T, "report_to": "none",
        "save_strategy": "no", "disable_dropout": True, "temperature": 0.8, "max_steps": 4,
    }  # fmt: skip
    return GRPOConfig(str(out), **{**settings, **changes})


def batch() -> dict[str, torch.Tensor]:
    """Random rows of all ranks, with log-probabilities far enough from the model's to clip."""
    generator = torch.Generator().manual_seed(5)
    rows = P * G
    lengths = torch.randint(1, T + 1, (rows, 1), generator=generator)
    prompt_lengths = torch.randint(2, PROMPT + 1, (P, 1), generator=generator).repeat_interleave(G, 0)
    mask = (torch.arange(T) < lengths).long()
    prompt_mask = (torch.arange(PROMPT) >= PROMPT - prompt_lengths).long()
    return {
        "prompt_ids": torch.randint(2, VOCABULARY, (rows, PROMPT), generator=generator) * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.randint(2, VOCABULARY, (rows, T), generator=generator) * mask,
        "completion_mask": mask,
        "rewards": torch.randint(0, 2, (rows,), generator=generator).float(),
        "old_noise": torch.randn(rows, T, generator=generator) * 0.3,
        "ref_noise": torch.randn(rows, T, generator=generator) * 0.3,
        "sampler_noise": torch.randn(rows, T, generator=generator) * 0.3,
    }


def gradient(model: Any) -> torch.Tensor:
    """The flattened gradient, averaged over ranks as DDP would."""
    flat = torch.cat([parameter.grad.flatten() for _, parameter in sorted(model.named_parameters())])
    if dist.is_initialized():
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
    return flat


def averaged(loss: float) -> float:
    """The mean of a number over ranks."""
    value = torch.tensor(loss, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return float(value)


class Case:
    """Both trainers on the same model and rows.

    Args:
        model: folder of the checkpoint.
        out: a scratch folder.
        loss_type: TRL's name.
        keep: share of tokens by entropy, from the current policy over all ranks' micro-batch.
        beta: KL weight.
        updates: W, optimizer steps from the batch.
        micro: rows in a slice.
        ranks: processes.
        reduction: ours, where TRL's name does not say it.
        sampler: the mode of importance correction over a separate sampler; None for none.
    """

    def __init__(
        self, model: Path, out: Path, loss_type: str, keep: float, beta: float, updates: int = 1, micro: int = 4,
        ranks: int = 1, reduction: str | None = None, sampler: str | None = None,
    ) -> None:  # fmt: skip
        self.sampler = sampler
        self.updates, self.micro = updates, micro
        self.ranks = Ranks.current()
        rows = P * G // ranks
        mine = slice(self.ranks.index * rows, (self.ranks.index + 1) * rows)
        everything = batch()
        self.rewards, self.rows = everything["rewards"], {name: value[mine] for name, value in everything.items()}
        theirs = {"loss_type": loss_type, "top_entropy_quantile": keep, "beta": beta, "epsilon_high": 0.28}
        arguments = {"train_dataset": [{"prompt": "t2"}]}

        def no_reward(completions: list, **_: Any) -> list[float]:
            return [0.0] * len(completions)

        from datasets import Dataset

        self.trl = GRPOTrainer(
            str(model), no_reward, args=config(out, updates, micro, ranks, **theirs),
            train_dataset=Dataset.from_list(arguments["train_dataset"]),
        )  # fmt: skip
        shared = {"scope": "micro_batch_all_ranks", "normalizer": "all"}
        selection = AllTokens(**shared) if keep == 1 else TopEntropy(keep=keep, **shared)
        objective = Clipped(epsilon_high=0.28, beta=beta, reduction=reduction or REDUCTIONS[loss_type])
        self.ours = RLVRTrainer(
            str(model), no_reward, algorithm=Algorithm(selection=selection, objective=objective),
            args=config(out, updates, micro, ranks), train_dataset=[{"prompt": "t2"}], window="row",
        )  # fmt: skip
        self._add_log_probs()
        if sampler is not None:
            self.trl.use_vllm, self.trl.vllm_importance_sampling_correction = True, True
            self.ours.correction = Correction(sampler, None, SAMPLER_CLIP)

    def _add_log_probs(self) -> None:
        rows = self.rows
        ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
        mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
        with torch.no_grad():
            logps, _, _ = self.trl._get_per_token_logps_and_entropies(self.trl.model, ids, mask, T)
        inside = rows["completion_mask"]
        rows["old_per_token_logps"] = (logps + rows.pop("old_noise")) * inside
        rows["ref_per_token_logps"] = (logps + rows.pop("ref_noise")) * inside
        rows["sampler_logps"] = (rows["old_per_token_logps"] + rows.pop("sampler_noise")) * inside

    def _decided(self) -> Any:
        rows, mask = self.rows, self.rows["completion_mask"]
        tokens = Tokens(rows["prompt_ids"], rows["prompt_mask"], rows["completion_ids"], mask)
        rollouts = Rollouts(rows["rewards"], self.rewards, rows["rewards"], G, rows["completion_ids"], mask.bool())
        scored = torch.ones(len(mask), dtype=torch.bool)
        ref = rows["ref_per_token_logps"] if self.ours.beta else None
        scores = Scores(rows["old_per_token_logps"], torch.zeros(mask.shape), ref, scored)
        reported = None if self.sampler is None else rows["sampler_logps"]
        return self.ours._decide(Sampled(tokens, rollouts, ~scored, reported), scores)

    def compare(self, step: int) -> tuple[float, float, float]:
        """(our loss, TRL's loss, largest difference of the gradients over TRL's largest) of one optimizer step."""
        decided = self._decided()
        accumulation = self.ours.sizes.slices_per_step
        ours, theirs = 0.0, 0.0
        self.trl.model.train()
        self.trl.model.zero_grad()
        self.ours.model.zero_grad()
        self.trl.current_gradient_accumulation_steps = accumulation
        advantages = decided.advantages.squeeze(1)
        items = self.ours.ranks.gather(self.rows["completion_mask"].sum()).sum()
        for index in range(accumulation):
            at = decided.plan[step][index]
            inputs = {name: value[at] for name, value in self.rows.items()}
            inputs |= {"advantages": advantages[at], "num_items_in_batch": items}
            if self.sampler is not None:
                old, reported = inputs["old_per_token_logps"], inputs["sampler_logps"]
                ratio = trl_weights(old, reported, inputs["completion_mask"], self.sampler, None, SAMPLER_CLIP)
                inputs["importance_sampling_ratio"] = ratio
            loss = self.trl._compute_loss(self.trl.model, inputs)
            loss.backward()
            theirs += float(loss.detach())
            part = cut_slice(decided, step, index, self.ours.ranks, False)
            loss = self.ours._compute_loss(self.ours.model, part)
            loss.backward()
            ours += float(loss.detach())
        mine, reference = gradient(self.ours.model), gradient(self.trl.model)
        return averaged(ours), averaged(theirs), float((mine - reference).abs().max() / reference.abs().max())
