"""What a run will do and need, from its configuration alone: no model is loaded, nothing is written."""

import math
from dataclasses import dataclass

from rlvr.config.algebra import BatchSizes
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.launch.agreement import zero_stage
from rlvr.model_shape import ADAPTER_BYTES, BYTES, ModelShape, read_shape
from rlvr.preflight import model_path, planned_ranks, run_sizes
from rlvr.rollouts.stream import prompt_text

HEAD_BUFFER_TOKENS = 4096
HEAD_BUFFER_COLUMNS = 32768
"""The tile that TRL's fused LM head works in, whatever the number of tokens."""

CHARACTERS_PER_TOKEN = 2
"""A cautious guess where nobody gives a prompt's length: real tokenizers need fewer tokens."""

MASTER_BYTES = 4
"""DeepSpeed updates a float32 copy of its share of the weights, with moments in float32, whatever the model."""

DEFAULT_BUCKET = 500_000_000
"""Elements, where DeepSpeed's `reduce_bucket_size` is not set."""

ACTIVATIONS_PER_LAYER = 34
"""Bytes per token, layer and hidden unit that 16-bit activations take (Korthikanti et al., arXiv 2205.05198, eq. 2,
without the attention scores, which flash attention does not store); twice that in float32."""


@dataclass(frozen=True)
class Plan:
    """A run in numbers.

    Attributes:
        sizes: the batch algebra.
        steps: optimizer steps.
        rollouts: rollout batches generated for them.
        slices: forward and backward passes of each rank over the run.
        completions: sampled over the run, all ranks.
        tokens_at_most: completion tokens of one rollout batch, if every one runs to the limit.
        voting_at_most: tokens of a rollout batch that can be candidates of the selection.
        kept_at_most: tokens of them that carry gradient.
        epochs: passes over the training prompts.
        memory: bytes on one rank by what they hold; empty where the model's shape is unknown.
    """

    sizes: BatchSizes
    steps: int
    rollouts: int
    slices: int
    completions: int
    tokens_at_most: int
    voting_at_most: int
    kept_at_most: int
    epochs: float
    memory: dict[str, float]


def memory_estimate(shape: ModelShape, config: RunConfig, sizes: BatchSizes, prompt_tokens: int) -> dict[str, float]:
    """Bytes on one rank, by what they hold. An estimate: allocator and framework overhead are not in it.

    Args:
        shape: of the policy.
        config: dtype, checkpointing, LoRA, lengths, DeepSpeed stage.
        sizes: the batch algebra.
        prompt_tokens: length of a prompt, tokens.
    """
    stage = zero_stage(config.deepspeed) or 0
    half = stage > 0 and _is_half(config)
    width = 2 if half else BYTES[config.model.dtype]
    shared = {level: sizes.ranks if stage >= level else 1 for level in (1, 2, 3)}
    lora = config.model.lora
    weights = shape.trained(lora)
    trained = weights * (2 if half else ADAPTER_BYTES if lora.rank else width)
    master = weights * MASTER_BYTES / shared[1] if stage else 0.0
    base = shape.parameters * width / shared[3]
    length = prompt_tokens + config.rollouts.max_completion_length
    tokens = sizes.micro_batch_rows * length
    block = ACTIVATIONS_PER_LAYER * shape.hidden * tokens * width / 2
    boundaries = shape.hidden * tokens * width * shape.layers
    activations = boundaries + block if config.model.gradient_checkpointing else block * shape.layers
    cached = sizes.rows_per_rank * length if config.rollouts.backend == "transformers" else 0
    return {
        "weights": base + (trained / shared[3] if lora.rank else 0.0),
        "gradients": trained / shared[2],
        "optimizer (Adam, two moments)": 2 * master if stage else 2.0 * trained,
        **({"master weights and buckets of DeepSpeed": master + _buckets(shape, config, width)} if stage else {}),
        **({"gradient buckets of DDP": trained} if sizes.ranks > 1 and not stage else {}),
        "reference model": base if config.objective.beta > 0 and not lora.rank else 0.0,
        "activations of a slice": activations,
        **_head_memory(shape, config, sizes),
        "key-value cache while sampling": cached * 2 * shape.key_value_width * shape.layers * width,
    }


def _head_memory(shape: ModelShape, config: RunConfig, sizes: BatchSizes) -> dict[str, float]:
    """Of the LM head: the fused tile, and logits and their gradient where the loss differentiates entropies."""
    tokens = sizes.micro_batch_rows * config.rollouts.max_completion_length
    width = BYTES[config.model.dtype]
    head: dict[str, float] = {
        "LM head tile": min(HEAD_BUFFER_TOKENS, tokens) * min(HEAD_BUFFER_COLUMNS, shape.vocabulary) * width
    }
    if config.objective.entropy_temperature is None:
        return head
    each = config.rollouts.max_completion_length  # all tokens of a row may be kept, and none of another's
    if config.selection.scope == "sequence" and config.objective.beta == 0:
        each = config.selection.kept_count(each)
    kept = sizes.micro_batch_rows * each
    return {**head, "logits of a slice and their gradient": 2 * kept * shape.vocabulary * width}


def _is_half(config: RunConfig) -> bool:
    """Whether DeepSpeed casts the model to bfloat16: as its configuration says, `auto` for as on a GPU."""
    enabled = (config.deepspeed.get("bf16") or {}).get("enabled", False)
    return config.model.autocast if enabled == "auto" else bool(enabled)


def _buckets(shape: ModelShape, config: RunConfig, width: int) -> float:
    """Bytes in which gradients are collected before they are reduced; two buckets where reducing overlaps."""
    zero = config.deepspeed["zero_optimization"]
    size = zero.get("reduce_bucket_size", DEFAULT_BUCKET)
    elements = shape.hidden**2 if size == "auto" else int(size)
    return float(min(elements, shape.parameters) * width * (2 if zero.get("overlap_comm") else 1))


def kept_at_most(config: RunConfig, sizes: BatchSizes) -> int:
    """Tokens of a rollout batch that can carry gradient: each pool of the selection rounds its share by itself."""
    rows = {
        "rollout": sizes.completions,
        "group": sizes.num_generations,
        "sequence": 1,
        "micro_batch": sizes.micro_batch_rows,
        "micro_batch_all_ranks": sizes.micro_batch_rows * sizes.ranks,
    }[config.selection.scope]
    in_pool: int = config.selection.kept_count(rows * config.rollouts.max_completion_length)
    return sizes.completions // rows * in_pool


def make_plan(config: RunConfig, sizes: BatchSizes, shape: ModelShape | None, prompts: int, prompt_tokens: int) -> Plan:
    """A run in numbers.

    Args:
        config: the resolved configuration.
        sizes: its batch algebra.
        shape: the policy's shape, or None where it is unknown.
        prompts: distinct training prompts.
        prompt_tokens: a prompt's length for the memory estimate, tokens.
    """
    rollouts = math.ceil(config.run.steps / sizes.steps_per_rollout)
    tokens = sizes.completions * config.rollouts.max_completion_length
    return Plan(
        sizes=sizes,
        steps=config.run.steps,
        rollouts=rollouts,
        slices=config.run.steps * sizes.slices_per_step,
        completions=rollouts * sizes.completions,
        tokens_at_most=tokens,
        voting_at_most=tokens,
        kept_at_most=kept_at_most(config, sizes),
        epochs=rollouts * sizes.prompts / max(prompts, 1),
        memory=memory_estimate(shape, config, sizes, prompt_tokens) if shape is not None else {},
    )


DIVIDED_BY = {
    ("token_mean", "kept"): "the kept tokens of the optimizer step (arXiv 2506.01939v2, eq. 6)",
    ("token_mean", "all"): "all completion tokens of the optimizer step (DAPO, arXiv 2503.14476, eq. 8)",
    ("token_mean", "released"): "the kept tokens of each slice, slices weighted by rows (the released 80/20 code)",
    ("token_mean_rollout", "kept"): "the kept tokens of the rollout batch over its updates",
    ("token_mean_rollout", "all"): "all completion tokens of the rollout batch over its updates (TRL's window)",
    ("sequence_mean", "kept"): "each completion by its kept tokens, then by the completions (GRPO)",
    ("sequence_mean", "all"): "each completion by its tokens, then by the completions (GRPO, arXiv 2402.03300)",
    ("sequence_sum", "kept"): "the completions times the kept share; each sums over its kept tokens",
    ("sequence_sum", "all"): "the completions, each of which sums over its tokens (EM-FT, arXiv 2505.15134, eq. 2)",
    ("constant", "kept"): "completions times the length limit, times the kept share (Dr. GRPO)",
    ("constant", "all"): "completions times the length limit (Dr. GRPO, arXiv 2503.20783)",
}
"""What the loss is divided by, in words, for (objective.reduction, selection.normalizer)."""


def words(plan: Plan, config: RunConfig) -> list[str]:
    """The plan in sentences, one a line."""
    sizes, selection = plan.sizes, config.selection
    policy = (
        "on-policy: one update from each rollout batch"
        if sizes.on_policy
        else f"off-policy after the first of {sizes.steps_per_rollout} updates from each rollout batch"
    )
    who = (
        "of completions whose group's verdicts differ"
        if selection.candidates == "informative"
        else "of all completions"
    )
    lines = [
        f"a rollout batch: {sizes.prompts} prompts * {sizes.num_generations} completions = {sizes.completions} rows",
        f"{sizes.completions} rows / {sizes.ranks} processes = {sizes.rows_per_rank} rows on each, in optimizer steps "
        f"({sizes.updates_per_rollout} of them) of {sizes.slices_per_step} slices of {sizes.micro_batch_rows} rows",
        f"{policy}; {plan.rollouts} rollout batches make {plan.steps} optimizer steps, "
        f"{plan.epochs:.2f} passes over the prompts",
        f"{selection.name} decides over {selection.scope}: tokens {who} vote, at most {plan.voting_at_most:,}; "
        f"{100 * selection.keep:g} % of those that vote carry gradient, at most {plan.kept_at_most:,}",
        f"the loss is divided by {DIVIDED_BY[config.objective.reduction, selection.normalizer]}",
    ]
    temperature = config.objective.entropy_temperature
    if temperature is not None:
        lines.insert(4, f"the loss of a token is the policy's entropy at temperature {temperature:g}")
    if config.objective.beta > 0:
        lines.append(f"KL to the reference, weight {config.objective.beta}, on {config.objective.kl_tokens} tokens")
    if config.data.prompt_limit() is not None:
        lines.append(f"passes are counted with prompts of more than {config.data.prompt_limit()} tokens still in")
    return lines


def show_plan(config: RunConfig, processes: int | None = None, prompt_tokens: int | None = None) -> None:
    """Print the resolved configuration, the plan in words, and the memory estimate.

    Args:
        config: the resolved configuration.
        processes: ranks the run would have; None for those of the launcher, else of `launch`.
        prompt_tokens: a prompt's length for the memory estimate, tokens; None for a guess from the longest prompt.

    Raises:
        UserError: for what `rlvr train` would refuse.
    """
    from omegaconf import OmegaConf

    from rlvr.config.convert import to_mapping
    from rlvr.trainer.algorithm import Algorithm

    ranks = planned_ranks(config) if processes is None else processes
    if prompt_tokens is not None and prompt_tokens < 1:
        raise UserError(f"--prompt-tokens is {prompt_tokens}; expected at least 1")
    if config.trl:  # TRL takes seconds to import
        from rlvr.trainer.arguments import check_trl_mapping

        check_trl_mapping(config.trl)
    sizes = run_sizes(config, ranks)
    algorithm = Algorithm(config.advantage, config.selection, config.objective)
    algorithm.check_group_size(sizes.num_generations, config.rollouts.backend == "vllm")
    problems = config.data.train()
    shape = read_shape(model_path(config))
    if prompt_tokens is None:
        guess = 1 + max(len(prompt_text(problem.prompt)) for problem in problems) // CHARACTERS_PER_TOKEN
        prompt_tokens = min(guess, config.data.prompt_limit() or guess)
    plan = make_plan(config, sizes, shape, len({problem.prompt_id for problem in problems}), prompt_tokens)
    print(OmegaConf.to_yaml(OmegaConf.create(to_mapping(config))))
    memory = _memory_lines(plan, shape, prompt_tokens, config.rollouts.backend == "vllm")
    print("\n".join([*words(plan, config), *config.data.notes(), *memory]))


def _memory_lines(plan: Plan, shape: ModelShape | None, prompt_tokens: int, vllm: bool) -> list[str]:
    if shape is None:
        return ["memory: not estimated; the model is no local folder of safetensors whose config.json names its sizes"]
    total = sum(plan.memory.values())
    parts = [f"  {value / 2**30:9.3f} GiB  {name}" for name, value in plan.memory.items() if value]
    return [
        f"memory on each process, estimated for {shape.parameters:,} parameters and prompts of {prompt_tokens} tokens, "
        f"without framework overhead: {total / 2**30:.2f} GiB",
        *parts,
        *(["  vLLM takes what trl.vllm_gpu_memory_utilization gives it, in none of these"] if vllm else []),
    ]
