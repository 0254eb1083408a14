"""The configuration of a run: one dataclass per section, each with its defaults and its checks."""

from dataclasses import dataclass, field
from typing import Any

from rlvr.config.correction import check_correctable
from rlvr.errors import UserError
from rlvr.launch.section import LaunchSection
from rlvr.rollouts.dynamic import DynamicSection
from rlvr.rollouts.record import RecordSection

DTYPES = ("float32", "bfloat16")
ATTENTION = ("sdpa", "flash_attention_2", "eager")
BACKENDS = ("transformers", "vllm")


def at_least(section: str, values: dict[str, float | None], least: float) -> None:
    """Refuse numbers below a bound; None means "not set" and passes.

    Raises:
        UserError: naming the field.
    """
    for name, value in values.items():
        if value is not None and not value >= least:
            raise UserError(f"{section}.{name} is {value}; expected a number of at least {least:g}")


@dataclass
class RunSection:
    """Which run this is.

    Attributes:
        name: folder under `dir`; None makes one from the algorithm and the time.
        dir: where run folders are made.
        algorithm: the name of the composed algorithm, for people and reports; the trainer does not read it.
        seed: seeds sampling, the order of prompts and random selection.
        steps: optimizer steps.
        save_steps: optimizer steps between checkpoints; 0 for the last one only.
        resume: `true` goes on from the newest good checkpoint of the run folder, `auto` does so if there is one and
            starts anew if not, a path goes on from that checkpoint.
        allow_changes: what may differ from the checkpoint, e.g. optimizer.learning_rate, code, packages, world_size.
        keep_last: how many of the latest checkpoints stay; 0 for all.
        keep_best: how many with the highest held-out accuracy stay besides, of those that `evaluation.every` measures.
        overwrite: remove an existing run folder first.
    """

    name: str | None = None
    dir: str = "runs"
    algorithm: str = ""
    seed: int = 0
    steps: int = 100
    save_steps: int = 0
    resume: bool | str = False
    allow_changes: list[str] = field(default_factory=list)
    keep_last: int = 2
    keep_best: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        at_least("run", {"steps": self.steps}, 1)
        at_least("run", {"save_steps": self.save_steps, "seed": self.seed}, 0)
        at_least("run", {"keep_last": self.keep_last, "keep_best": self.keep_best}, 0)
        if not isinstance(self.resume, bool) and not (isinstance(self.resume, str) and self.resume):
            raise UserError(f"run.resume is {self.resume!r}; expected true, false, auto or the path of a checkpoint")
        if self.resume and self.overwrite:
            raise UserError("run.resume and run.overwrite are both true; one keeps the run folder, one removes it")


@dataclass
class LoraSection:
    """Low-rank adapters instead of all weights (arXiv 2106.09685); needs the package `peft`.

    Attributes:
        rank: of each adapter; 0 trains all weights.
        alpha: adapters are scaled by alpha / rank.
        target_modules: names of linear layers, or `all-linear`; never the LM head.
    """

    rank: int = 0
    alpha: int = 32
    target_modules: list[str] = field(default_factory=lambda: ["all-linear"])

    def __post_init__(self) -> None:
        at_least("model.lora", {"rank": self.rank}, 0)
        if not self.alpha > 0:
            raise UserError(f"model.lora.alpha is {self.alpha}; expected a number above 0, e.g. 32")
        if not self.target_modules:
            raise UserError("model.lora.target_modules is empty; expected names of linear layers, or [all-linear]")
        if any(name.rsplit(".", 1)[-1] == "lm_head" for name in self.target_modules):
            raise UserError(
                "model.lora.target_modules names lm_head; log-probabilities come from its weights directly, so an "
                "adapter there would never be trained: leave it out"
            )


@dataclass
class ModelSection:
    """The policy to start from.

    Attributes:
        path: a folder or a hub id; `builtin` for the base policy that ships with the package.
        revision: branch, tag or commit of a hub id; None for its default.
        trust_remote_code: run code that comes with the model; only for sources you trust.
        dtype: of the weights and the optimizer's moments: float32 or bfloat16. Small learning rates need float32.
        autocast: compute in bfloat16 where the weights are float32; GPUs only.
        attn_implementation: `sdpa`, `flash_attention_2` or `eager`; None for the model's default.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        lora: adapters instead of all weights.
    """

    path: str = "builtin"
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str = "float32"
    autocast: bool = True
    attn_implementation: str | None = None
    gradient_checkpointing: bool = False
    lora: LoraSection = field(default_factory=LoraSection)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"model.dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if self.attn_implementation is not None and self.attn_implementation not in ATTENTION:
            raise UserError(
                f"model.attn_implementation is {self.attn_implementation!r}; expected one of {', '.join(ATTENTION)}"
            )


@dataclass
class RolloutsSection:
    """What is sampled. Sizes are global: over all processes.

    Attributes:
        prompts: P, prompts in a rollout batch.
        num_generations: G, completions per prompt.
        max_completion_length: tokens.
        temperature: of sampling, and of log-probabilities and entropies.
        top_p: nucleus; 1 for off.
        top_k: 0 for off.
        backend: what generates: `transformers`, or `vllm` (`trl.vllm_mode=colocate` or `server`, and TRL's other
            `vllm_*` fields).
        correct_sampler: with vLLM, weigh by the ratio of policy to sampler; `trl.vllm_importance_sampling_mode`,
            `..._clip_min` and `..._clip_max` say how. TRL's default mode, `sequence_mask`, takes most of its gradient
            from an answer of thousands of tokens: use `token_truncate` there.
        record_scores: with transformers, and one optimizer step per rollout batch, take entropies and log-probabilities
            from sampling; false for a forward pass of their own.
        record: which rollouts are kept on disk.
        dynamic: sampling until a batch is full of groups whose verdicts differ.
    """

    prompts: int = 32
    num_generations: int = 8
    max_completion_length: int = 48
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    backend: str = "transformers"
    correct_sampler: bool = True
    record_scores: bool = True
    record: RecordSection = field(default_factory=RecordSection)
    dynamic: DynamicSection = field(default_factory=DynamicSection)

    def __post_init__(self) -> None:
        at_least("rollouts", {"max_completion_length": self.max_completion_length}, 1)
        at_least("rollouts", {"top_k": self.top_k}, 0)
        if not self.temperature > 0:
            raise UserError(f"rollouts.temperature is {self.temperature}; expected a number above 0, e.g. 1.0")
        if not 0 < self.top_p <= 1:
            raise UserError(f"rollouts.top_p is {self.top_p}; expected a number above 0 and at most 1")
        if self.backend not in BACKENDS:
            raise UserError(f"rollouts.backend is {self.backend!r}; expected one of {', '.join(BACKENDS)}")
        self.dynamic.check_reach(self.prompts)


@dataclass
class OptimizerSection:
    """How rollouts become updates.

    Attributes:
        learning_rate: of AdamW.
        lr_scheduler_type: as in transformers; `constant`, `linear`, `cosine`, `constant_with_warmup`, ...
        warmup_steps: optimizer steps.
        weight_decay: decoupled.
        max_grad_norm: clip the global norm of the gradient; 0 for off.
        updates_per_rollout: W, optimizer steps a rollout batch is split into.
        num_iterations: how often a rollout batch is gone through.
        micro_batch_rows: completions in one pass on one process: memory only. None for the largest whole share of at
            most 64; long completions of a large model need far fewer, see `rlvr plan`.
        window: `group` or `row`: what goes round the W steps.
        sparse_head: run the LM head on the tokens that carry gradient only; false for comparison.
    """

    learning_rate: float = 4e-4
    lr_scheduler_type: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    updates_per_rollout: int = 1
    num_iterations: int = 1
    micro_batch_rows: int | None = None
    window: str = "group"
    sparse_head: bool = True

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("warmup_steps", "weight_decay", "max_grad_norm")}
        at_least("optimizer", {**numbers, "learning_rate": self.learning_rate}, 0)


@dataclass
class EvaluationSection:
    """Held-out accuracy, by the function that rewards.

    Attributes:
        every: optimizer steps between evaluations during training; 0 for before and after only.
        problems: held-out problems used, at most.
        batch_size: problems generated for at once.
        max_completion_length: tokens; None for that of the rollouts.
        contamination: benchmarks that the training prompts are searched for before a run starts, e.g. [math500].
        benchmarks_dir: a folder with the benchmarks' files; None for the hub.
    """

    every: int = 0
    problems: int = 512
    batch_size: int = 256
    max_completion_length: int | None = None
    contamination: list[str] = field(default_factory=list)
    benchmarks_dir: str | None = None

    def __post_init__(self) -> None:
        at_least("evaluation", {"every": self.every}, 0)
        sizes = {name: getattr(self, name) for name in ("problems", "batch_size", "max_completion_length")}
        at_least("evaluation", sizes, 1)


@dataclass
class LoggingSection:
    """Where metrics go beside `metrics.jsonl`.

    Attributes:
        report_to: `wandb`, `tensorboard`, ...: trackers as transformers names them.
        progress: `auto` (a bar on a terminal, lines elsewhere), `bar`, `lines` or `none`.
    """

    report_to: list[str] = field(default_factory=list)
    progress: str = "auto"

    def __post_init__(self) -> None:
        if self.progress not in ("auto", "bar", "lines", "none"):
            raise UserError(f"logging.progress is {self.progress!r}; expected auto, bar, lines or none")


@dataclass
class RunConfig:
    """Everything about a run; `config.yaml` in the run folder is this, resolved.

    Attributes:
        advantage: the chosen variant of `rlvr/advantages/`.
        selection: of `rlvr/selection/`.
        objective: of `rlvr/objectives/`.
        data: of `rlvr/data/`.
        reward: the rewards by name, in order; the first gives the verdict.
        trl: fields of TRL's GRPOConfig that nobody here owns.
        deepspeed: a DeepSpeed configuration, or empty.
        launch: how ranks are started.
    """

    data: Any
    reward: dict[str, Any]
    advantage: Any
    selection: Any
    objective: Any
    run: RunSection = field(default_factory=RunSection)
    model: ModelSection = field(default_factory=ModelSection)
    rollouts: RolloutsSection = field(default_factory=RolloutsSection)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    trl: dict[str, Any] = field(default_factory=dict)
    deepspeed: dict[str, Any] = field(default_factory=dict)
    launch: LaunchSection = field(default_factory=LaunchSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    logging: LoggingSection = field(default_factory=LoggingSection)

    def __post_init__(self) -> None:
        if self.rollouts.backend == "vllm" and self.rollouts.correct_sampler:
            cuts = {f"rollouts.{name}": getattr(self.rollouts, name) for name in ("top_p", "top_k")}
            others = {f"trl.{name}": value for name, value in self.trl.items()}
            check_correctable({**cuts, **others}, "rollouts.correct_sampler=false")
