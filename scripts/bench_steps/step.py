"""One measured optimizer step of one trainer on injected rollouts; runs in a process of its own."""

import ctypes
import gc
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from rlvr.maths.masked import last_true
from rlvr.trainer.algorithm import Algorithm, named_algorithm
from rlvr.trainer.batch import Recorded
from rlvr.trainer.seam import RLVRTrainer
from scripts.bench_steps.planned import PROMPT_TOKENS, Job, Planned, plan_rollouts
from scripts.bench_steps.recorded import inject_recorded, load_recorded
from scripts.bench_steps.shapes import make_model, make_tokenizer, useful_flops
from scripts.bench_steps.switches import switched

Generated = tuple[list[list[int]], list[list[int]], None, list[str], None, dict[str, Any], None, None]


class _Injected:
    """Planned rollouts in the place of generation; nothing else of the trainer is touched."""

    planned: Planned
    known: Recorded | None = None

    def _generate(self, prompts: list[Any]) -> Generated:
        if self.known is not None:
            inject_recorded(self, self.known)
        ids = [list(row) for row in self.planned.prompt_ids], [list(row) for row in self.planned.completion_ids]
        return *ids, None, [""] * len(prompts), None, {}, None, None


class InjectedOurs(_Injected, RLVRTrainer):
    """Ours."""

    def trained_masks(self) -> list[tuple[Tensor, Tensor]]:
        """(prompt tokens (N,), tokens with gradient (N, T)) of the step."""
        assert self.rollout is not None, "a step was made"
        return [(self.rollout.sampled.tokens.prompt_mask.sum(dim=1), self.rollout.projected())]


class InjectedTRL(_Injected, GRPOTrainer):
    """TRL's, which also notes which tokens carried gradient."""

    def trained_masks(self) -> list[tuple[Tensor, Tensor]]:
        """(prompt tokens (N,), tokens with gradient (N, T)) of the step's slices."""
        steps = self.args.gradient_accumulation_steps
        return [(prompts, mask & advances) for prompts, mask, advances in self.noted[-steps:]]

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        prompts, advances = inputs["prompt_mask"].sum(dim=1), (inputs["advantages"] != 0).view(-1, 1)
        self.noted = [*getattr(self, "noted", ()), (prompts, inputs["completion_mask"] > 0, advances)]
        return super()._compute_loss(model, inputs)

    def get_high_entropy_mask(self, *args: Any, **kwargs: Any) -> Tensor:
        """TRL's mask."""
        mask = super().get_high_entropy_mask(*args, **kwargs)
        self.noted[-1] = (self.noted[-1][0], mask, self.noted[-1][2])
        return mask


class Watch(TrainerCallback):
    """Seconds, memory and forwarded positions of the last optimizer step.

    Attributes:
        seconds: from before the rollouts are scored until after the optimizer.
        before: bytes in use when the step began: resident on a CPU, allocated on a GPU.
        peak: most bytes in use during the step.
        positions: token positions that were forwarded, padding included, by whether they had gradient.
    """

    def __init__(self, model: Any, device: str) -> None:
        self.device, self.seconds, self.before, self.peak = device, 0.0, 0, 0
        self.positions = {True: 0, False: 0}
        model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: Any, kwargs: Any) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        self.positions[torch.is_grad_enabled()] += ids.numel()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.positions = {True: 0, False: 0}
        reset_peak(self.device)
        self.before = memory(self.device, "now")
        self.start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop it."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start
        self.peak = memory(self.device, "peak")


def reset_peak(device: str) -> None:
    """Forget the largest memory so far, and give back what the allocator holds without need."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        return
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS: proc(5)


def memory(device: str, which: str) -> int:
    """Bytes in use `now` or at the `peak` since the last reset."""
    if device == "cuda":
        return torch.cuda.memory_allocated() if which == "now" else torch.cuda.max_memory_allocated()
    name = {"now": "VmRSS:", "peak": "VmHWM:"}[which]
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def algorithm_of(keep: float) -> Algorithm:
    """DAPO on a share of the tokens; on all of them where the share is 1."""
    if keep == 1:
        return named_algorithm("dapo")
    algorithm = named_algorithm("dapo_top20")
    return replace(algorithm, selection=replace(algorithm.selection, keep=keep))  # type: ignore[call-arg]


def _arguments(job: Job, out: str) -> GRPOConfig:
    setting = job.setting
    of_trl = {"loss_type": "dapo", "top_entropy_quantile": job.keep, "beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.28}
    return GRPOConfig(
        out, use_cpu=setting.device == "cpu", bf16=setting.dtype == "bfloat16", optim=setting.optim,
        gradient_checkpointing=setting.checkpointing, per_device_train_batch_size=job.rows,
        gradient_accumulation_steps=setting.completions // job.rows, num_generations=setting.group, num_iterations=1,
        max_completion_length=setting.cut, max_steps=1 + setting.warmup_steps, learning_rate=1e-6,
        lr_scheduler_type="constant", logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
        **(of_trl if job.trainer == "trl" else {}),
    )  # fmt: skip


def build(job: Job, out: str) -> Any:
    """The trainer of a job, its weights and rollouts in place."""
    setting = job.setting
    planned = plan_rollouts(setting, job.degenerate)
    dataset = [{"prompt": f"prompt {index}"} for index in range(setting.completions // setting.group)]
    model = make_model(setting.shape, setting.device, setting.dtype, PROMPT_TOKENS[1] + setting.cut)

    def planned_reward(completions: list[str], **_: Any) -> list[float]:
        return planned.rewards

    common: dict[str, Any] = {"args": _arguments(job, out), "processing_class": make_tokenizer()}
    if job.trainer == "trl":
        from datasets import Dataset

        trainer: Any = InjectedTRL(model, planned_reward, train_dataset=Dataset.from_list(dataset), **common)
    else:
        trainer = InjectedOurs(model, planned_reward, algorithm_of(job.keep), train_dataset=dataset, **common)
    trainer.planned, trainer.known = planned, load_recorded(job.recorded) if job.recorded else None
    trainer.remove_callback(PrinterCallback)
    return trainer


def run(job: Job) -> dict[str, Any]:
    """Make one optimizer step and measure it.

    Returns:
        `seconds`; `peak_bytes` above those in use before the step; `kept_tokens` with gradient;
        `positions` forwarded, by whether they had gradient; `flops` of the useful work.
    """
    if job.setting.device == "cpu":
        torch.set_num_threads(job.setting.threads)
    with tempfile.TemporaryDirectory() as out, ExitStack() as stack:
        trainer = build(job, out)
        stack.enter_context(switched(job.switched_off, trainer))
        watch = Watch(trainer.model, job.setting.device)
        trainer.add_callback(watch)
        _warm_up(trainer.model)
        trainer.train()
        return _result(job, trainer, watch)


def _warm_up(model: Any) -> None:
    """Two tokens forward and backward, and an optimizer's step elsewhere: what a process imports and starts once."""
    ids = torch.tensor([[2, 3]], device=model.device)
    model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum().backward()
    model.zero_grad(set_to_none=True)
    weight = torch.ones(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.AdamW([weight]).step()


def _result(job: Job, trainer: Any, watch: Watch) -> dict[str, Any]:
    trained, scored = [], []
    for prompts, mask in trainer.trained_masks():
        rows = zip(prompts.tolist(), last_true(mask).tolist(), mask.sum(dim=1).tolist(), strict=True)
        trained += [(prompt + last, kept) for prompt, last, kept in rows if kept]
    if job.trainer == "ours" and watch.positions[False]:
        needed, planned = trainer.rollout.scores.scored.tolist(), trainer.planned
        rows = zip(planned.prompt_ids, planned.completion_ids, needed, strict=True)
        scored = [(len(prompt) + len(ids), len(ids)) for prompt, ids, wanted in rows if wanted]
    return {
        "seconds": watch.seconds,
        "peak_bytes": watch.peak - watch.before,
        "before_bytes": watch.before,
        "kept_tokens": sum(kept for _, kept in trained),
        "positions": watch.positions[True],
        "scored_positions": watch.positions[False],
        "flops": useful_flops(job.setting.shape, trained, scored),
    }
