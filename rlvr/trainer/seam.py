"""The one seam to TRL: a subclass of `GRPOTrainer` that samples through it and decides and updates by itself."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from rlvr.allocator import keep_memory
from rlvr.maths.rollouts import Rollouts, total_rewards
from rlvr.rewards.adapter import checked
from rlvr.rollouts.dynamic import DynamicSection
from rlvr.rollouts.stream import PromptStream
from rlvr.trainer import state
from rlvr.trainer.algorithm import Algorithm, named_algorithm
from rlvr.trainer.arguments import check_model, default_arguments, own_arguments, sizes_of, unsupported
from rlvr.trainer.batch import Correction, Ranks, RolloutBatch, Sampled, Scores, Slice, ignore
from rlvr.trainer.decide import decide, rows_to_score
from rlvr.trainer.entropy_head import EntropyTerms, token_entropies
from rlvr.trainer.faults import Faults
from rlvr.trainer.forward import Tokens, compacted_head, token_logps
from rlvr.trainer.label_free import check_rewards, meaningless_metrics
from rlvr.trainer.loss import cut_slice, slice_loss
from rlvr.trainer.rounds import even_batch, fill_batch, rounds_of
from rlvr.trainer.sampling import sampler_of
from rlvr.trainer.saving import Saver
from rlvr.trainer.scoring import scores_of
from rlvr.trainer.stats import StepStats


class RLVRTrainer(GRPOTrainer):
    """Policy gradients on the tokens that matter.

    TRL generates, calls the rewards, and owns the training loop; selection, advantages, denominators, the loss and
    the order of rows are decided here, once per rollout batch and the same on any number of ranks.

    Args:
        model: a path, a hub id or a causal language model.
        reward_funcs: as in TRL; the first one's value is the verdict that says which groups are informative.
        algorithm: the name of a `configs/algorithm/*.yaml`, or an `Algorithm`.
        args: a `GRPOConfig`; what the algorithm decides must be left at TRL's defaults there.
        train_dataset: rows with the column `prompt` and those the rewards read.
        group_size: G where `args.num_generations` cannot say it: 1, for algorithms that compare no completions. TRL's
            own field is at least 2; it only has to divide the rows then.
        dynamic: sample until a rollout batch is full of informative groups; None, or no rounds, for off.
        window: which rows share an optimizer step where a rollout batch makes several; see `BatchSizes`.
        sparse_head: project only the tokens that carry gradient; False for comparison.
        correct_sampler: weigh by importance where vLLM samples; `args.vllm_importance_sampling_mode` and its bounds
            say how.
        record_scores: take entropies and log-probabilities from sampling where transformers samples and each rollout
            batch makes one optimizer step; False for a forward pass of their own.
        on_rollout: called with (trainer, batch, prompt rows) on the main process after every rollout batch.
        kwargs: `processing_class`, `callbacks`, `optimizers`, `peft_config`, `quantization_config`,
            `reward_processing_classes` as in TRL; anything else is refused by name.

    Raises:
        UserError: for sizes that do not divide, fields that the algorithm owns, and unsupported features.
    """

    reward_funcs: list[Any]

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        algorithm: str | Algorithm = "dapo_top20",
        args: GRPOConfig | None = None,
        train_dataset: Sequence[dict[str, Any]] | Dataset | None = None,
        *,
        group_size: int | None = None,
        dynamic: DynamicSection | None = None,
        window: str = "group",
        sparse_head: bool = True,
        correct_sampler: bool = True,
        record_scores: bool = True,
        on_rollout: Callable[["RLVRTrainer", RolloutBatch, list[dict[str, Any]]], None] | None = None,
        **kwargs: Any,
    ) -> None:
        unsupported(kwargs, train_dataset)
        self.algorithm = named_algorithm(algorithm) if isinstance(algorithm, str) else algorithm
        args = default_arguments() if args is None else copy(args)
        self.sizes = sizes_of(args, window, group_size)
        check_rewards(reward_funcs, self.algorithm)
        self.stream = PromptStream(list(train_dataset or []), args.seed)
        own_arguments(args, self.algorithm, self.sizes, len(self.stream.rows))
        self.correction = Correction.of(args, correct_sampler)
        super().__init__(model, reward_funcs, args=args, train_dataset=Dataset.from_list([{"prompt": ""}]), **kwargs)
        self.reward_funcs = list(map(checked, self.reward_func_names, self.reward_funcs))
        check_model(self.model)
        self.ranks = Ranks.current()
        self.rounds = rounds_of(dynamic, self.sizes, self.ranks, self.algorithm)
        self.sparse_head = sparse_head
        self.on_rollout = on_rollout
        self.on_policy = self.sizes.on_policy and not (self.rounds and self.rounds.mixes_policies)
        self.sampler = self.rollout_func = sampler_of(self, record_scores and self.on_policy)
        self.meaningless = meaningless_metrics(self.reward_funcs, self.reward_func_names, self.algorithm)
        self.end_ids = [*self.eos_token_ids, self._tokenizer.pad_token_id]
        for function in self.reward_funcs:
            if hasattr(function, "bind"):
                function.bind(self.end_ids, self.max_completion_length, self.sizes.num_generations)
        self._begin()

    def _begin(self) -> None:
        """The counters and buffers of a run that has made nothing yet."""
        keep_memory(self.args.device.type)
        self.rollouts_made = self.empty_steps = 0
        self.on_slice: Callable[[Slice, Tensor], None] = ignore
        self.rollout: RolloutBatch | None = None
        self.phase_seconds: dict[str, float] = {}
        self.rewards_per_func: Tensor = torch.empty(0)
        self.completions: list[Any] = []
        self.step_stats = StepStats()
        self.resumed: state.Resumed | None = None
        self.saver = Saver(self)
        self.faults = Faults(self)
        self.at_border: Callable[[str], None] = lambda _: None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to a phase of the step, and take them from the phase around it."""
        start, nested = time.perf_counter(), sum(self.phase_seconds.values())
        self.at_border(name)
        try:
            yield
        finally:
            self.at_border(name)
            spent = time.perf_counter() - start - (sum(self.phase_seconds.values()) - nested)
            self.phase_seconds[name] = self.phase_seconds.get(name, 0.0) + spent

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """The policy as a model that can `generate`: unwrapped, its sharded weights gathered for the time being."""
        gather = self.args.ds3_gather_for_generation
        with unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gather_deepspeed3_params=gather
        ) as policy:
            yield policy

    def get_train_dataloader(self) -> DataLoader:
        """One empty item per slice: the prompts come from the stream, the rows from the rollout batch."""
        slices = self.args.max_steps * self.args.gradient_accumulation_steps
        return DataLoader(range(slices), batch_size=1, collate_fn=lambda _: {})  # type: ignore[arg-type]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """TRL's rewards, kept: (rows of all ranks, functions), NaN where a function gave none."""
        self.completions = completions
        with self.phase("reward"):
            self.rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self.rewards_per_func

    def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[None, None, None]:
        """Nothing: TRL would score every row and token here; `_score` does it for the rows that need it."""
        return None, None, None

    def _generate_and_score_completions(self, inputs: Any) -> RolloutBatch:
        """A rollout batch from the next prompts of the stream, with everything decided."""
        if self.rounds is None:
            sampled, rows = even_batch(self, *self.sample(self.sizes.prompts))
            scores = self.score(sampled, rows_to_score(sampled, self.algorithm))
        else:
            sampled, scores, rows = fill_batch(self, self.rounds)
        batch = self._decide(sampled, scores)
        for name, value in batch.metrics.items():
            self.note(name, value)
        self.rollouts_made += 1
        if self.on_rollout is not None and self.accelerator.is_main_process:
            self.on_rollout(self, batch, rows)
        return batch

    def sample(self, count: int) -> tuple[Sampled, list[dict[str, Any]]]:
        """This rank's completions of the next `count` prompts of the stream, judged, and the prompt of each row."""
        share = count // self.ranks.count
        if self.sampler is not None:
            self.sampler.first = self.stream.taken + self.ranks.index * share
        prompts = self.stream.take(count)
        mine = prompts[self.ranks.index * share : (self.ranks.index + 1) * share]
        rows = [dict(prompt) for prompt in mine for _ in range(self.sizes.num_generations)]
        with self.phase("generate"):
            output = super()._generate_and_score_completions(rows)
        return self._sampled(output), rows

    def _sampled(self, output: dict[str, Any]) -> Sampled:
        rewards = self.rewards_per_func
        total = total_rewards(rewards, self.reward_weights.to(rewards.device))
        ids, mask = output["completion_ids"], output["completion_mask"]
        mine = slice(self.ranks.index * len(ids), (self.ranks.index + 1) * len(ids))
        ends = torch.tensor(self.end_ids, device=ids.device)
        last = ids.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)).squeeze(1)
        rollouts = Rollouts(
            total[mine], total, rewards[mine, 0], self.sizes.num_generations, ids, mask.bool(),
            special_ids=tuple(self._tokenizer.all_special_ids),
        )  # fmt: skip
        tokens = Tokens(output["prompt_ids"], output["prompt_mask"], ids, mask)
        recorded = None if self.sampler is None else self.sampler.take_recorded()
        return Sampled(tokens, rollouts, ~torch.isin(last, ends), output.get("sampling_per_token_logps"), recorded)

    def _forward(self, model: Any, tokens: Tokens, projected: Tensor) -> tuple[Tensor, Tensor | None]:
        vocabulary = self.model.config.get_text_config().vocab_size
        with self.accelerator.autocast(), compacted_head(vocabulary, self.args.device.type == "cpu"):
            return token_logps(model, tokens, projected)

    def score(self, sampled: Sampled, needed: Tensor) -> Scores:
        """The sampling policy's numbers in the rows (B,) that need them, and the reference's for a KL term."""
        with self.phase("score"):
            return scores_of(self, sampled, needed)

    def _decide(self, sampled: Sampled, scores: Scores) -> RolloutBatch:
        with self.phase("select"):
            return decide(
                sampled, scores, self.algorithm, self.sizes, self.ranks, self.max_completion_length,
                seed=self.args.seed, step=self.rollouts_made, correction=self.correction,
            )  # fmt: skip

    def _prepare_inputs(self, generation_batch: Any) -> Slice:
        """The slice that is due, of a new rollout batch where the last one is used up."""
        position = self._step % (self.sizes.slices_per_rollout * self.sizes.num_iterations)
        if position == 0 or self.rollout is None:
            self.rollout = self._generate_and_score_completions(generation_batch)
        step, index = divmod(position % self.sizes.slices_per_rollout, self.sizes.slices_per_step)
        if index == 0:
            self.empty_steps += self.rollout.is_empty(step)
        return cut_slice(self.rollout, step, index, self.ranks, self.on_policy, self.sparse_head)

    def _loss_numbers(self, model: Any, part: Slice) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities, entropies to decide by, and entropies to differentiate where the objective has them."""
        terms = EntropyTerms.of(self.algorithm, self.temperature)
        if part.idle and not self.is_deepspeed_enabled:
            nothing = torch.zeros(part.projected.shape, device=part.projected.device, requires_grad=True)
            return nothing, nothing.detach(), None if terms is None else nothing
        if terms is None:
            return *self._forward(model, part.tokens, part.projected), None
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        with self.accelerator.autocast():
            return token_entropies(model, head, part.tokens, part.projected, terms)

    def _compute_loss(self, model: Any, inputs: Slice) -> Tensor:
        """The loss of one slice, through the model it was given: a dummy row too has to pass DDP's and ZeRO's hooks."""
        loss, sums = self.faults.loss(model, inputs)
        self.step_stats.add(sums)
        return loss

    def _loss_of(self, part: Slice, logps: Tensor, entropies: Tensor | None, terms: Tensor | None) -> Any:
        self.on_slice(part, logps.detach())
        return slice_loss(part, logps, entropies, self.algorithm.objective, self.ranks, terms)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Tensor:
        """A slice; after the last one of a step, its metrics are reduced over ranks."""
        with self.phase("train"):
            loss = super().training_step(model, inputs, num_items_in_batch)
            if self._step % self.sizes.slices_per_step == 0:
                self.faults.close_step()
                self._close_step()
        return loss

    def _close_step(self) -> None:
        assert self.rollout is not None, "a step ends only after a rollout batch was made"
        steps_done = self._step // self.sizes.slices_per_step
        kept = self.rollout.step_counts[(steps_done - 1) % self.sizes.updates_per_rollout].kept
        counts = {name: float(kept) for name in self.algorithm.objective.measured}
        for name, value in self.step_stats.reduce(self.ranks, counts).items():
            self._metrics["train"][name].append(value)

    def note(self, name: str, value: float) -> None:
        """A number for the log of the step that is going on."""
        self._metrics["train"][name].append(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's metrics of the step, with the position in the data and the seconds of each phase."""
        for name in self.meaningless:
            self._metrics["train"].pop(name, None)
        if "loss" in logs:
            self.state.epoch = self.stream.epoch
            logs["rollout_step"] = self.rollouts_made
            logs["selection/empty_steps"] = self.empty_steps
            logs["faults/skipped_steps"] = self.faults.count
            logs.update({f"seconds/{name}": spent for name, spent in self.phase_seconds.items()})
            self.phase_seconds.clear()
        state.correct_speeds(self, logs)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """TRL's checkpoint, and what else shapes the future, put in place as a whole."""
        with self.phase("save"):
            self.saver.save(partial(super()._save_checkpoint, model, trial))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        load = partial(super()._load_optimizer_and_scheduler, checkpoint)
        if checkpoint is not None:
            self.saver.load(Path(checkpoint), load)
