"""Runs on the formats of GSM8K and MATH-500 with policies of two architectures, from files to a finished run folder."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from rlvr.config.compose import compose
from rlvr.data.base import Problem
from rlvr.errors import UserError
from rlvr.rollouts.record import read_record
from rlvr.train import Run, train
from tests.end_to_end.models import gsm8k_rows, make_policy, math_rows, write_rows

FILES = {"config.yaml", "metrics.jsonl", "rollouts", "checkpoints", "summary.json", "log.txt", "report.html"}
SIZES = [
    "run.name=x", "run.steps=3", "logging.progress=none", "rollouts.prompts=4", "rollouts.num_generations=8",
    "optimizer.updates_per_rollout=2", "optimizer.micro_batch_rows=8", "rollouts.max_completion_length=16",
    "rollouts.record.every=1", "optimizer.learning_rate=3e-3",
]  # fmt: skip
KINDS = {
    "gsm8k with llama": ("llama", gsm8k_rows, "paper_8020"),
    "math with qwen3 and its chat template": ("qwen3", math_rows, "chat"),
}


class Setting:
    """Problems in a file and a policy in a folder."""

    def __init__(self, folder: Path, kind: str, rows: list[dict[str, Any]], template: str) -> None:
        self.data = [
            "data=files", f"data.train_files={write_rows(folder / 'train.jsonl', rows)}", f"data.template={template}",
            "data.heldout_size=4", "data.max_prompt_tokens=200",
        ]  # fmt: skip
        data = compose(self.data).data
        self.problems: list[Problem] = [*data.train(), *data.heldout()]
        self.model = make_policy(folder / "model", kind, self.problems, template == "chat")

    def config(self, runs: Path, *more: str) -> Any:
        return compose([*self.data, *SIZES, f"model.path={self.model}", f"run.dir={runs}", *more])

    def base(self) -> dict[str, Tensor]:
        return weights_in(self.model)

    def prompt(self) -> Any:
        """Token ids of a prompt, rendered by hand."""
        from transformers import AutoTokenizer

        prompt = self.problems[0].prompt
        text = prompt if isinstance(prompt, str) else f"<|user|>{prompt[0]['content']}\n<|assistant|>"
        return AutoTokenizer.from_pretrained(self.model)(text, return_tensors="pt", return_token_type_ids=False)


def weights_in(folder: str | Path, loader: Any = None) -> dict[str, Tensor]:
    from transformers import AutoModelForCausalLM

    return (loader or AutoModelForCausalLM).from_pretrained(folder).state_dict()


def metrics(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (runs / "x" / "metrics.jsonl").read_text().splitlines()]


def execute(config: Any) -> Run:
    run = Run(config, Console(quiet=True))
    run.execute()
    return run


Maker = Callable[[str], Setting]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Makes each setting once."""
    made: dict[str, Setting] = {}

    def make(name: str) -> Setting:
        if name not in made:
            kind, rows, template = KINDS[name]
            made[name] = Setting(tmp_path_factory.mktemp("setting"), kind, rows(), template)
        return made[name]

    return make


@pytest.mark.parametrize("name", KINDS)
def test_a_run_on_files_learns_and_leaves_a_complete_folder(name: str, setting: Maker, tmp_path: Path) -> None:
    given = setting(name)
    summary = train(given.config(tmp_path), Console(quiet=True))
    assert {path.name for path in (tmp_path / "x").iterdir()} == FILES
    assert (summary["steps"], summary["heldout_problems"]) == (3, 4)
    assert all(0 <= summary[key] <= 1 for key in ("accuracy_before", "accuracy_after", "greedy_before", "greedy_after"))
    rows = metrics(tmp_path)
    assert [row["rollout_step"] for row in rows] == [1, 1, 2]
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in rows)
    assert 0 < rows[0]["reward"] < 1, "the policies know the form of an answer, so some are right by chance"
    assert rows[0]["completions/clipped_ratio"] < 0.5
    after, before = weights_in(tmp_path / "x/checkpoints/checkpoint-3"), given.base()
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert "<html" in (tmp_path / "x" / "report.html").read_text()[:500]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_recorded_is_what_was_asked_and_graded(name: str, setting: Maker, tmp_path: Path) -> None:
    given = setting(name)
    execute(given.config(tmp_path, "run.steps=1", "evaluation.problems=1"))
    rows = read_record(tmp_path / "x/rollouts/step_000001.parquet")
    assert len(rows) == 32
    golds = {problem.prompt_id: problem.gold for problem in given.problems}
    for row in rows:
        assert golds[row["prompt_id"]] == row["gold"]
        right = row["completion"] == f"\\boxed{{{row['gold']}}}" and not row["truncated"]
        assert row["correct"] == right or "\\boxed{" in row["completion"]
    assert any(row["correct"] for row in rows)
    mine = given.problems[0].prompt
    assert (rows[0]["prompt"].startswith("[{")) == (not isinstance(mine, str)), "chats are recorded as JSON"


def test_prompts_over_the_limit_are_left_out_and_counted(setting: Maker, tmp_path: Path) -> None:
    from rlvr.data.lengths import prompt_lengths

    given = setting("math with qwen3 and its chat template")
    run = Run(given.config(tmp_path), Console(quiet=True))
    lengths = prompt_lengths([*run.problems, *run.heldout], run.tokenizer)
    limit = sorted(set(lengths))[0]
    dropped = sum(length > limit for length in lengths)
    assert dropped > 0
    shorter = Run(given.config(tmp_path, f"data.max_prompt_tokens={limit}"), Console(quiet=True))
    assert len(shorter.problems) + len(shorter.heldout) == 24 - dropped
    assert any(f"prompts of more than {limit} tokens left out" in note for note in shorter.notes)
    with pytest.raises(UserError, match=r"none of \d+ prompts fits data\.max_prompt_tokens=1"):
        Run(given.config(tmp_path, "data.max_prompt_tokens=1"), Console(quiet=True))
    assert not (tmp_path / "x").exists()


def test_the_prompt_is_tokenized_as_the_chat_template_renders_it(setting: Maker, tmp_path: Path) -> None:
    given = setting("math with qwen3 and its chat template")
    run = execute(given.config(tmp_path, "run.steps=1", "evaluation.problems=1"))
    tokens = run.trainer.rollout.sampled.tokens
    first = read_record(tmp_path / "x/rollouts/step_000001.parquet")[0]
    question = json.loads(first["prompt"])[0]["content"]
    read = run.tokenizer.decode(tokens.prompt_ids[0][tokens.prompt_mask[0].bool()])
    assert read == f"<|user|>{question}\n<|assistant|>"


def test_a_chat_for_a_policy_without_a_chat_template_is_refused(setting: Maker, tmp_path: Path) -> None:
    given = setting("gsm8k with llama")
    with pytest.raises(UserError, match=r"no chat template; use a model that has one.*paper_8020"):
        Run(given.config(tmp_path, "data.template=chat"), Console(quiet=True))
    with pytest.raises(UserError, match=r"no chat template; use a model that has one.*paper_8020"):
        Run(given.config(tmp_path, "data.template=chat", "data.max_prompt_tokens=null"), Console(quiet=True))
    with_template = setting("math with qwen3 and its chat template")
    strict = shutil.copytree(with_template.model, tmp_path / "strict")
    (strict / "chat_template.jinja").write_text("{{ raise_exception('no system here') }}")
    with pytest.raises(UserError, match=r"refuses a chat of the roles system, user \(no system here\)"):
        Run(with_template.config(tmp_path, "data.template=qwen_boxed", f"model.path={strict}"), Console(quiet=True))
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_adapters_alone_are_trained_and_their_checkpoint_loads(name: str, setting: Maker, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    given = setting(name)
    run = execute(given.config(tmp_path, "model.lora.rank=4", "run.save_steps=1"))
    trained = {key.replace("base_model.model.", "").replace(".base_layer", ""): value
               for key, value in run.trainer.model.state_dict().items()}  # fmt: skip
    base = given.base()
    assert all(torch.equal(trained[key], base[key]) for key in base), "the base is untouched"
    adapters = {key: value for key, value in trained.items() if key not in base}
    assert all("lora_A" in key or "lora_B" in key for key in adapters)
    assert any(value.abs().max() > 0 for key, value in adapters.items() if "lora_B" in key)
    checkpoint = tmp_path / "x/checkpoints/checkpoint-3"
    assert not (checkpoint / "model.safetensors").exists(), "a checkpoint holds the adapters alone"
    tokens = given.prompt()
    with torch.no_grad():
        now = run.trainer.model.eval()(**tokens).logits
        for loader in (AutoModelForCausalLM, AutoPeftModelForCausalLM):
            loaded = loader.from_pretrained(checkpoint).eval()
            torch.testing.assert_close(loaded(**tokens).logits, now, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_of_adapters_goes_on_from_its_checkpoint(setting: Maker, tmp_path: Path) -> None:
    given = setting("gsm8k with llama")
    lora = ("model.lora.rank=4", "run.save_steps=1", "evaluation.problems=1")
    whole = execute(given.config(tmp_path / "whole", *lora))
    execute(given.config(tmp_path / "cut", *lora, "run.steps=1"))
    resumed = execute(given.config(tmp_path / "cut", *lora, "run.resume=true"))
    first, second = whole.trainer.model.state_dict(), resumed.trainer.model.state_dict()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_gradient_checkpointing_gives_the_same_weights(name: str, setting: Maker, tmp_path: Path) -> None:
    given = setting(name)
    plain, frugal = (
        execute(given.config(tmp_path / value, f"model.gradient_checkpointing={value}", "evaluation.problems=1"))
        for value in ("false", "true")
    )
    assert frugal.trainer.model.is_gradient_checkpointing
    assert not plain.trainer.model.is_gradient_checkpointing
    first, second = plain.trainer.model.state_dict(), frugal.trainer.model.state_dict()
    for key in first:
        torch.testing.assert_close(second[key], first[key], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lora", ["0", "4"])
def test_the_reference_is_the_policy_of_the_path(lora: str, setting: Maker, tmp_path: Path) -> None:
    given = setting("math with qwen3 and its chat template")
    run = execute(given.config(tmp_path, "objective.beta=0.1", f"model.lora.rank={lora}", "evaluation.problems=1"))
    rows = metrics(tmp_path)
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert rows[2]["kl"] > 1e-6
    first = read_record(tmp_path / "x/rollouts/step_000001.parquet")
    for row in first:
        assert row["ref_logprobs"] == pytest.approx(row["logprobs"], abs=1e-4)
    if lora == "0":
        reference, base = run.trainer.ref_model.state_dict(), given.base()
        assert all(torch.equal(reference[key], base[key]) for key in base)
    else:
        assert run.trainer.ref_model is None


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_weights_in_bfloat16_train_on_a_cpu(name: str, setting: Maker, tmp_path: Path) -> None:
    given = setting(name)
    run = execute(given.config(tmp_path, "model.dtype=bfloat16"))
    assert {value.dtype for value in run.trainer.model.parameters()} == {torch.bfloat16}
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] is not None for row in metrics(tmp_path))
    after, before = run.trainer.model.state_dict(), given.base()
    assert any(not torch.equal(after[key], before[key].bfloat16()) for key in before)
    saved = json.loads((tmp_path / "x/checkpoints/checkpoint-3/config.json").read_text())
    assert "bfloat16" in (saved.get("dtype"), saved.get("torch_dtype"))


@pytest.mark.parametrize(
    ("setting_given", "said"),
    [
        (["model.attn_implementation=flash_attention_2"], "FlashAttention2"),
        (["model.lora.rank=4", "model.lora.target_modules=[foo]"], "Target modules {'foo'} not found"),
    ],
)
def test_what_the_model_refuses_is_one_line_and_leaves_no_folder(
    setting_given: list[str], said: str, setting: Maker, tmp_path: Path
) -> None:
    config = setting("gsm8k with llama").config(tmp_path / "runs", *setting_given)
    with pytest.raises(UserError, match="cannot be trained with these settings") as refused:
        train(config, Console(quiet=True))
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()
