"""TRL's arguments: the ones we own, the ones that pass through, and the sizes they imply."""

import dataclasses
import math
from difflib import get_close_matches
from typing import Any, get_type_hints

from trl import GRPOConfig

from rlvr.config.algebra import BatchSizes
from rlvr.config.convert import convert
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.owned import ALGORITHM_OWNS, RUN_OWNS

TRL_FIELDS = {field.name: field for field in dataclasses.fields(GRPOConfig)}

SAMPLING_FIELDS = ("max_completion_length", "temperature", "top_p", "top_k")
OPTIMIZER_FIELDS = ("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm")
"""Fields that TRL calls as we do, in `rollouts` and in `optimizer`."""

DOOR_OWNS = {
    "data_seed": "args.seed seeds the order of the prompts",
    "enable_jit_checkpoint": "callbacks=[Preemption(notice)] saves at SIGTERM, after the step and agreed by all ranks",
    "neftune_noise_alpha": RUN_OWNS["neftune_noise_alpha"],
    "shuffle_dataset": "the prompt stream shuffles, seeded by args.seed",
    "sync_ref_model": RUN_OWNS["sync_ref_model"],
    "train_sampling_strategy": "the prompt stream shuffles, seeded by args.seed",
    "vllm_importance_sampling_correction": "correct_sampler=False of RLVRTrainer turns the correction off",
}
"""Fields that must stand at TRL's defaults in a `GRPOConfig`: nothing reads them, or they would spoil the scores."""

UNSUPPORTED = ("environment_factory", "eval_dataset", "rollout_func", "tools")
KNOWN_KEYWORDS = (
    "callbacks", "optimizers", "peft_config", "processing_class", "quantization_config", "reward_processing_classes",
)  # fmt: skip


def check_trl_mapping(given: dict[str, Any]) -> None:
    """Refuse what TRL does not have, with a suggestion, what we own, with the field to use instead, and wrong types.

    Raises:
        UserError: for the first such key.
    """
    hints = get_type_hints(GRPOConfig)
    for name, value in given.items():
        if name not in TRL_FIELDS:
            close = get_close_matches(name, TRL_FIELDS, n=1)
            hint = f"did you mean trl.{close[0]}?" if close else "see trl.GRPOConfig for the fields"
            raise UserError(f"trl.{name} is not a field of TRL's GRPOConfig; {hint}")
        owner = {**ALGORITHM_OWNS, **RUN_OWNS}.get(name)
        if owner is not None:
            raise UserError(f"trl.{name} is not taken here: {owner}")
        convert(value, hints[name], f"trl.{name}")


def unsupported(kwargs: dict[str, Any], train_dataset: Any) -> None:
    """Refuse features of TRL's trainer that this one would ignore.

    Raises:
        UserError: naming the feature.
    """
    for name, value in kwargs.items():
        if name in UNSUPPORTED and value is not None:
            raise UserError(f"{name}= is a TRL feature that RLVRTrainer does not support; leave it out")
        if name not in KNOWN_KEYWORDS and name not in UNSUPPORTED:
            raise UserError(f"{name}= is not a keyword of RLVRTrainer; expected one of {', '.join(KNOWN_KEYWORDS)}")
    if train_dataset is None:
        raise UserError("train_dataset= is missing; expected rows with a `prompt` column, a Dataset or a list of dicts")
    if not hasattr(train_dataset, "__len__"):
        raise UserError(f"train_dataset= is a {type(train_dataset).__name__}; expected rows that can be counted")


def sizes_of(args: GRPOConfig, window: str, group_size: int | None = None) -> BatchSizes:
    """The batch algebra that a `GRPOConfig` implies.

    Args:
        args: TRL's arguments.
        window: which rows share an optimizer step.
        group_size: G where it is not `args.num_generations`: 1, which TRL's field cannot say.

    Raises:
        UserError: if a rollout batch is not a whole number of optimizer steps, or the sizes do not divide.
    """
    slices, accumulation = args.steps_per_generation, args.gradient_accumulation_steps
    if slices % accumulation:
        raise UserError(
            f"steps_per_generation is {slices} and gradient_accumulation_steps {accumulation}; accumulating over "
            f"several rollout batches is not supported: make the first a multiple of the second"
        )
    if group_size not in (None, 1, args.num_generations):
        raise UserError(
            f"group_size is {group_size} and args.num_generations {args.num_generations}; expected group_size=1, or to "
            "leave it out"
        )
    rows, size = args.per_device_train_batch_size * args.world_size * slices, group_size or args.num_generations
    return BatchSizes(
        prompts=rows // size,
        num_generations=size,
        updates_per_rollout=slices // accumulation,
        num_iterations=args.num_iterations,
        micro_batch_rows=args.per_device_train_batch_size,
        ranks=args.world_size,
        window=window,
    )


def default_arguments() -> GRPOConfig:
    """TRL's defaults where the caller gives none, on the device that is there: TRL's own ask for bf16 on any."""
    import torch

    on_gpu = torch.cuda.is_available()
    return GRPOConfig("runs/library", use_cpu=not on_gpu, bf16=on_gpu)


def own_arguments(args: GRPOConfig, algorithm: Algorithm, sizes: BatchSizes, prompts: int) -> None:
    """Set what we own in a `GRPOConfig`, after checking that nobody else did.

    Raises:
        UserError: for a field that the algorithm decides, and for what is not supported.
    """
    for name, owner in ALGORITHM_OWNS.items():
        default, given = TRL_FIELDS[name].default, getattr(args, name)
        if given != default:
            raise UserError(f"args.{name} is {given!r}, but the algorithm decides it; leave it out: {owner}")
    for name, reason in DOOR_OWNS.items():
        default, given = TRL_FIELDS[name].default, getattr(args, name)
        if given != default:
            raise UserError(f"args.{name} is {given!r}; expected {default!r}: leave it out, {reason}")
    if args.log_completions:
        raise UserError("args.log_completions=True logs TRL's advantages, not ours; use on_rollout= to record rollouts")
    if args.eval_strategy != "no":
        raise UserError(f"args.eval_strategy is {args.eval_strategy!r}; evaluate with a callback instead")
    algorithm.check_group_size(sizes.num_generations, args.use_vllm)
    if args.cast_lm_head_to_fp32 and algorithm.objective.entropy_temperature is not None:
        raise UserError(
            "args.cast_lm_head_to_fp32=True with an objective that differentiates entropies; they are computed in "
            "float32 from the model's own logits: leave it out"
        )
    args.beta = algorithm.objective.beta
    args.disable_dropout = True
    args.shuffle_dataset = False
    args.vllm_importance_sampling_correction = False
    args.ddp_find_unused_parameters = False
    if args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * prompts / sizes.prompts) * sizes.steps_per_rollout


def check_model(model: Any) -> None:
    """Refuse models whose loss would be wrong.

    Raises:
        UserError: for prompt-learning adapters and mixture-of-experts router losses.
    """
    for config in getattr(model, "peft_config", {}).values():
        if config.is_prompt_learning:
            raise UserError(
                f"peft type {config.peft_type} prepends virtual tokens, which shifts the scored positions; use LoRA"
            )
    check_model_config(model.config)


def check_model_config(config: Any) -> None:
    """Refuse a mixture of experts that adds its router's loss.

    Raises:
        UserError: if `output_router_logits` is set.
    """
    if getattr(config.get_text_config(), "output_router_logits", False):
        raise UserError("the model's config has output_router_logits=true; no router loss is offered: set it to false")


def trl_arguments(config: RunConfig, sizes: BatchSizes, output_dir: str) -> GRPOConfig:
    """The `GRPOConfig` of a run: our fields under TRL's names, and the checked `trl:` mapping.

    Raises:
        UserError: for keys of `trl:` that do not exist or that we own, and for values that TRL refuses.
    """
    from transformers.integrations.integration_utils import get_reporting_integration_callbacks

    check_trl_mapping(config.trl)
    try:
        get_reporting_integration_callbacks(config.logging.report_to)
        return GRPOConfig(**{**_our_fields(config, sizes, output_dir), **config.trl})
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"TRL refuses these arguments: {' '.join(str(error).split())}") from None


def _our_fields(config: RunConfig, sizes: BatchSizes, output_dir: str) -> dict[str, Any]:
    """The configuration under TRL's names."""
    import torch

    on_cpu = not torch.cuda.is_available()
    # Renamed in transformers; TRL's default of true has to be overridden under the name that counts.
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in TRL_FIELDS else "gradient_checkpointing"
    return {
        "output_dir": output_dir,
        "run_name": config.run.name,
        "seed": config.run.seed,
        "max_steps": config.run.steps,
        "save_strategy": "steps",
        "save_steps": config.run.save_steps or config.run.steps,
        **_size_fields(sizes),
        **{name: getattr(config.rollouts, name) for name in SAMPLING_FIELDS},
        **{name: getattr(config.optimizer, name) for name in OPTIMIZER_FIELDS},
        "use_vllm": config.rollouts.backend == "vllm",
        "model_init_kwargs": _model_arguments(config),
        "trust_remote_code": config.model.trust_remote_code,
        checkpointing: config.model.gradient_checkpointing,
        "reward_weights": [reward.weight for reward in config.reward.values()],
        "logging_steps": 1,
        "report_to": config.logging.report_to or "none",
        "deepspeed": config.deepspeed or None,
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "bf16": config.model.autocast and not on_cpu,
        "logging_nan_inf_filter": False,  # a loss that is not finite must show
    }


def _size_fields(sizes: BatchSizes) -> dict[str, int]:
    return {
        "per_device_train_batch_size": sizes.micro_batch_rows,
        "gradient_accumulation_steps": sizes.slices_per_step,
        "steps_per_generation": sizes.slices_per_rollout,
        "num_generations": max(2, sizes.num_generations),  # TRL's least; the stream gives each row its own prompt
        "num_iterations": sizes.num_iterations,
    }


def _model_arguments(config: RunConfig) -> dict[str, Any]:
    """Keywords of `from_pretrained`."""
    model = config.model
    chosen = {"revision": model.revision, "attn_implementation": model.attn_implementation}
    return {"dtype": model.dtype, **{name: value for name, value in chosen.items() if value is not None}}


def lora_config(config: RunConfig) -> Any:
    """The `peft` configuration of `model.lora`; None where all weights are trained.

    Raises:
        UserError: if `peft` is not installed.
    """
    lora = config.model.lora
    if lora.rank == 0:
        return None
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError(f"model.lora.rank is {lora.rank}, but peft is not installed; pip install peft") from None
    targets: Any = lora.target_modules[0] if lora.target_modules == ["all-linear"] else lora.target_modules
    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM")
