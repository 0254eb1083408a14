"""The shipped base policy: loads, is small, reads and writes the task exactly, and is about half right."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from rlvr.assets import base_policy_path
from rlvr.data.arithmetic import Arithmetic
from rlvr.data.demonstrations import END_OF_TEXT, demonstrate
from rlvr.rewards.extract import last_boxed
from rlvr.rewards.grade import grade_many

DATA = Arithmetic()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(base_policy_path())


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base_policy_path(), dtype=torch.float32).eval()


def test_small_enough_to_ship(model: PreTrainedModel) -> None:
    assert model.num_parameters() < 1_000_000
    assert sum(file.stat().st_size for file in base_policy_path().rglob("*") if file.is_file()) < 2_000_000


def test_weights_are_finite_float32_as_saved() -> None:
    saved = AutoModelForCausalLM.from_pretrained(base_policy_path(), dtype="auto")
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in saved.parameters())


def test_the_card_says_where_it_comes_from() -> None:
    card = (base_policy_path() / "README.md").read_text(encoding="utf-8")
    for fact in ("apache-2.0", "python -m scripts.build_base_policy", repr(DATA), "accuracy"):
        assert fact in card


def test_special_tokens(tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel) -> None:
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (END_OF_TEXT, "<|pad|>", None)
    assert tokenizer.padding_side == "left"
    generation = model.generation_config
    assert (generation.eos_token_id, generation.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (generation.temperature, generation.top_k, generation.top_p) == (1.0, 0, 1.0)


def test_every_training_prompt_and_demonstration_comes_back_exactly(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    texts = [str(problem.prompt) for problem in DATA.train()]
    texts += [text + demonstrate(text, rng) for text in texts]
    assert tokenizer.batch_decode(tokenizer(texts)["input_ids"]) == texts


def test_a_decoded_completion_holds_its_box(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer(demonstrate("7+4*2="))["input_ids"]
    assert len(ids) == 9  # 7 + 8 = 15 \boxed{ 15 } end
    assert ids[-1] == tokenizer.eos_token_id
    assert last_boxed(tokenizer.decode(ids, skip_special_tokens=True)) == "15"


def test_each_number_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer([str(number) for number in range(DATA.largest_value + 1)])["input_ids"]
    assert all(len(row) == 1 for row in ids)
    assert len({row[0] for row in ids}) == DATA.largest_value + 1


def test_text_outside_the_vocabulary_is_an_error_and_not_something_else(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="UNK"):
        tokenizer("100/4=")


def test_about_half_of_its_samples_are_right(tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel) -> None:
    problems = DATA.heldout()
    torch.manual_seed(0)
    inputs = tokenizer([str(problem.prompt) for problem in problems], return_tensors="pt", padding=True)
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=24)[:, inputs["input_ids"].shape[1] :]
    truncated = [tokenizer.eos_token_id not in row for row in ids.tolist()]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    verdicts = grade_many(texts, [problem.gold for problem in problems], truncated)
    assert 0.30 < sum(verdict.correct for verdict in verdicts) / len(verdicts) < 0.60
    assert sum(truncated) <= 5  # it knows how to stop


def test_missing_files_say_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlvr.assets.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="build_base_policy"):
        base_policy_path()
