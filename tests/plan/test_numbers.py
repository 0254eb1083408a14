"""The numbers of a plan, worked by hand; what a model's headers say is what the model has."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from rlvr.advantages.grpo import GRPO
from rlvr.config.compose import compose
from rlvr.config.schema import LoraSection
from rlvr.errors import UserError
from rlvr.maths.denominators import NORMALIZERS, REDUCTIONS
from rlvr.model_shape import ModelShape, read_shape
from rlvr.objectives.clipped import Clipped
from rlvr.plan import DIVIDED_BY, Plan, kept_at_most, make_plan, memory_estimate, words
from rlvr.preflight import run_sizes
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm
from tests.trainer.tiny import make_qwen3

LINEARS = {f"layers.{index}.{name}": width for index in (0, 1) for name, width in (("q_proj", 16), ("down_proj", 20))}
SHAPE = ModelShape(parameters=1000, hidden=8, layers=2, key_value_width=4, vocabulary=50, linears=LINEARS)
SIZES = [
    "rollouts.prompts=4", "rollouts.num_generations=2", "optimizer.micro_batch_rows=2",
    "rollouts.max_completion_length=10",
]  # fmt: skip


def memory(*settings: str, ranks: int = 1, shape: ModelShape = SHAPE) -> dict[str, float]:
    config = compose([*SIZES, *settings])
    return memory_estimate(shape, config, run_sizes(config, ranks), prompt_tokens=6)


def plan_of(*settings: str, ranks: int = 1, prompts: int = 10) -> Plan:
    config = compose([*SIZES, *settings])
    return make_plan(config, run_sizes(config, ranks), SHAPE, prompts, prompt_tokens=6)


def test_memory_in_float32_worked_by_hand() -> None:
    assert memory() == {
        "weights": 1000 * 4,
        "gradients": 1000 * 4,
        "optimizer (Adam, two moments)": 1000 * 2 * 4,
        "reference model": 0,
        # 2 rows of 6 + 10 tokens, 8 wide: 34 bytes each in 16 bits, 68 in 32, in 2 layers
        "activations of a slice": 68 * 8 * 32 * 2,
        # 2 rows of 10 tokens at once, 50 columns
        "LM head tile": 20 * 50 * 4,
        # 8 rows of 16 tokens; keys and values, 4 wide, in 2 layers
        "key-value cache while sampling": 8 * 16 * 2 * 4 * 2 * 4,
    }


def test_bfloat16_halves_everything_and_a_reference_costs_the_weights_again() -> None:
    full, half = memory("objective.beta=0.1"), memory("objective.beta=0.1", "model.dtype=bfloat16")
    assert full["reference model"] == full["weights"] == 4000
    assert half == {name: value / 2 for name, value in full.items()}


def test_checkpointing_keeps_the_layers_inputs_and_one_layers_activations() -> None:
    frugal = memory("model.gradient_checkpointing=true")
    assert frugal["activations of a slice"] == 8 * 32 * 4 * 2 + 68 * 8 * 32


def test_the_head_works_in_tiles_of_a_fixed_size() -> None:
    shape = ModelShape(1000, 8, 2, 4, vocabulary=100_000)
    rows = ("rollouts.prompts=1024", "optimizer.micro_batch_rows=1024")
    assert memory(*rows, shape=shape)["LM head tile"] == 4096 * 32768 * 4


def test_entropies_with_gradient_need_the_logits_and_their_gradient() -> None:
    em = ("algorithm=em_ft", "rollouts.num_generations=2")
    # 2 rows of 10 tokens, 50 columns, 4 bytes, twice
    assert memory(*em)["logits of a slice and their gradient"] == 2 * 20 * 50 * 4
    own = memory(*em, "selection=top_entropy", "selection.keep=0.25", "selection.scope=sequence")
    assert own["logits of a slice and their gradient"] == 2 * 2 * 3 * 50 * 4, "ceil(2.5) tokens of each row"
    assert "logits of a slice and their gradient" not in memory()


def test_one_completion_per_prompt_in_words() -> None:
    config = compose(["algorithm=one_shot_em", "rollouts.prompts=4", "rollouts.max_completion_length=10"])
    lines = words(make_plan(config, run_sizes(config), None, 1, 6), config)
    assert lines[0] == "a rollout batch: 4 prompts * 1 completions = 4 rows"
    assert "the loss of a token is the policy's entropy at temperature 0.5" in lines


def test_vllm_keeps_its_own_cache() -> None:
    assert memory("rollouts.backend=vllm")["key-value cache while sampling"] == 0


@pytest.mark.parametrize(("stage", "divided"), [(0, (1, 1, 1)), (1, (1, 1, 4)), (2, (1, 4, 4)), (3, (4, 4, 4))])
def test_zero_divides_what_its_stage_shares(stage: int, divided: tuple[int, int, int]) -> None:
    parts = memory(
        "objective.beta=0.1", "optimizer.micro_batch_rows=1", f"deepspeed.zero_optimization.stage={stage}", ranks=4
    )
    weights, gradients, optimizer = divided
    assert parts["weights"] == parts["reference model"] == 4000 / weights
    assert parts["gradients"] == 4000 / gradients
    assert parts["optimizer (Adam, two moments)"] == 8000 / optimizer
    assert parts["key-value cache while sampling"] == 2 * 16 * 2 * 4 * 2 * 4, "a rank has 2 of 8 rows"
    # A float32 copy of the share, and a bucket of all 1000 gradients: fewer than the 5e8 that fit.
    master = "master weights and buckets of DeepSpeed"
    assert parts.get(master) == (4000 / optimizer + 4000 if stage else None)


def test_deepspeed_in_bfloat16_keeps_what_it_updates_in_float32() -> None:
    stage2 = ["optimizer.micro_batch_rows=1", "deepspeed.zero_optimization.stage=2", "deepspeed.bf16.enabled=true"]
    buckets = ["deepspeed.zero_optimization.reduce_bucket_size=100", "deepspeed.zero_optimization.overlap_comm=true"]
    parts = memory(*stage2, *buckets, ranks=4)
    assert parts["weights"] == 1000 * 2
    assert parts["gradients"] == 1000 * 2 / 4
    assert parts["optimizer (Adam, two moments)"] == 1000 * 8 / 4
    assert parts["master weights and buckets of DeepSpeed"] == 1000 * 4 / 4 + 100 * 2 * 2, "two buckets of 100"


def test_a_stage_that_deepspeed_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match="stage is 4; expected 0, 1, 2 or 3"):
        memory("deepspeed.zero_optimization.stage=4")


def test_adapters_are_trained_in_float32_and_are_their_own_reference() -> None:
    parts = memory("model.lora.rank=4", "objective.beta=0.1", "model.dtype=bfloat16")
    adapters = 4 * (16 + 20) * 2  # rank times inputs plus outputs, in 2 layers
    assert parts["weights"] == 1000 * 2 + adapters * 4
    assert parts["gradients"] == adapters * 4
    assert parts["optimizer (Adam, two moments)"] == adapters * 8
    assert parts["reference model"] == 0
    assert SHAPE.trained(LoraSection(rank=4, target_modules=["q_proj"])) == 4 * 16 * 2
    assert SHAPE.trained(LoraSection(rank=4, target_modules=["proj"])) == 0, "whole names only"
    assert SHAPE.trained(LoraSection(rank=4, target_modules=["1.down_proj"])) == 4 * 20


@pytest.mark.parametrize("tied", [True, False])
def test_the_headers_hold_as_many_weights_as_the_model(tied: bool, tmp_path: Path) -> None:
    model = make_qwen3(tied=tied)
    model.save_pretrained(tmp_path)
    shape = read_shape(str(tmp_path))
    assert shape is not None
    assert shape.parameters == model.num_parameters()
    assert (shape.hidden, shape.layers, shape.key_value_width, shape.vocabulary) == (16, 2, 8, 23)


def test_tied_heads_save_the_vocabulary_times_the_width(tmp_path: Path) -> None:
    counts = []
    for tied in (True, False):
        make_qwen3(tied=tied).save_pretrained(tmp_path / str(tied))
        shape = read_shape(str(tmp_path / str(tied)))
        assert shape is not None
        counts.append(shape.parameters)
    assert counts[1] - counts[0] == 23 * 16


def test_shards_are_added_and_a_second_copy_is_not(tmp_path: Path) -> None:
    model = make_qwen3()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    (tmp_path / "consolidated.safetensors").write_bytes(shards[0].read_bytes())
    shape = read_shape(str(tmp_path))
    assert shape is not None
    assert shape.parameters == model.num_parameters()


@pytest.mark.parametrize("targets", [["all-linear"], ["q_proj", "down_proj"]])
def test_adapters_are_counted_as_peft_counts_them(targets: list[str], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = make_qwen3()
    model.save_pretrained(tmp_path)
    shape = read_shape(str(tmp_path))
    assert shape is not None
    modules: Any = targets[0] if targets == ["all-linear"] else targets
    adapted = get_peft_model(model, LoraConfig(r=3, target_modules=modules, task_type="CAUSAL_LM"))
    trainable = sum(value.numel() for value in adapted.parameters() if value.requires_grad)
    assert shape.trained(LoraSection(rank=3, target_modules=targets)) == trainable > 0


def test_a_folder_that_names_no_sizes_has_no_shape(tmp_path: Path) -> None:
    assert read_shape("org/name") is None
    assert read_shape(str(tmp_path)) is None
    make_qwen3().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"n_embd": 16, "n_layer": 2}')
    assert read_shape(str(tmp_path)) is None


@pytest.mark.parametrize("content", [b"", b"xx", b"\xff" * 16, b"\x02\x00\x00\x00\x00\x00\x00\x00[]"])
def test_a_damaged_file_of_weights_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    make_qwen3().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read as safetensors"):
        read_shape(str(tmp_path))


def test_a_plan_worked_by_hand() -> None:
    # 4 prompts * 2 = 8 rows, on 2 ranks 4 each, in 2 updates of 2 rows: 1 slice; gone through 3 times = 6 steps.
    settings = ("optimizer.updates_per_rollout=2", "optimizer.num_iterations=3", "run.steps=13", "selection.keep=0.2")
    plan = plan_of(*settings, ranks=2)
    assert plan.sizes.steps_per_rollout == 6
    assert (plan.steps, plan.rollouts, plan.slices, plan.completions) == (13, 3, 13, 24)
    assert (plan.tokens_at_most, plan.voting_at_most, plan.kept_at_most) == (80, 80, 16)
    assert plan.epochs == pytest.approx(1.2), "3 batches of 4 prompts out of 10"


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        ("selection.scope=rollout", 17),  # ceil(0.21 * 80)
        ("selection.scope=group", 4 * 5),  # ceil(0.21 * 20) in 4 groups
        ("selection.scope=sequence", 8 * 3),  # ceil(0.21 * 10) in 8 rows
        ("selection.scope=micro_batch", 4 * 5),  # 4 slices of 2 rows
        ("selection.scope=micro_batch_all_ranks", 4 * 5),
        ("selection=bottom_entropy", 16),  # what the top 0.79 leaves: 80 - ceil(63.2)
        ("selection=random", 17),
    ],
)
def test_each_pool_rounds_its_share_by_itself(selection: str, kept: int) -> None:
    assert plan_of(selection, "selection.keep=0.21").kept_at_most == kept


def test_all_tokens_keep_all() -> None:
    assert plan_of("algorithm=dapo").kept_at_most == 80


def test_pools_over_ranks_hold_the_rows_of_all_ranks() -> None:
    config = compose([*SIZES, "selection.scope=micro_batch_all_ranks", "selection.keep=0.21"])
    assert kept_at_most(config, run_sizes(config, 2)) == 2 * 9  # 2 pools of 4 rows: ceil(0.21 * 40)


def test_the_plan_in_words() -> None:
    settings = ["optimizer.updates_per_rollout=2", "run.steps=5", "objective.beta=0.1", "selection.keep=0.125"]
    assert words(plan_of(*settings, ranks=2), compose([*SIZES, *settings])) == [
        "a rollout batch: 4 prompts * 2 completions = 8 rows",
        "8 rows / 2 processes = 4 rows on each, in optimizer steps (2 of them) of 1 slices of 2 rows",
        "off-policy after the first of 2 updates from each rollout batch; 3 rollout batches make 5 optimizer steps, "
        "1.20 passes over the prompts",
        "top_entropy decides over rollout: tokens of completions whose group's verdicts differ vote, at most 80; "
        "12.5 % of those that vote carry gradient, at most 10",
        "the loss is divided by the kept tokens of the optimizer step (arXiv 2506.01939v2, eq. 6)",
        "KL to the reference, weight 0.1, on all tokens",
    ]


def test_every_accepted_pair_of_reduction_and_normalizer_has_words_and_no_other() -> None:
    accepted = set()
    for reduction, normalizer, scope in itertools.product(REDUCTIONS, NORMALIZERS, ("rollout", "micro_batch")):
        try:
            Algorithm(GRPO(), TopEntropy(normalizer=normalizer, scope=scope), Clipped(reduction=reduction))
        except UserError:
            continue
        accepted.add((reduction, normalizer))
    assert accepted == set(DIVIDED_BY)
