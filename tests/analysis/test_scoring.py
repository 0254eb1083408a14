"""Scores of given tokens: against the model's own logits, whatever the batch."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rlvr.analysis import forward
from rlvr.analysis.scoring import open_policy, prompt_ids_of, score_completions
from rlvr.errors import UserError
from tests.evaluation.tiny import make_model, make_tokenizer, save_checkpoint, save_model

LENGTHS = [(3, 5), (1, 1), (9, 2), (2, 0), (4, 17), (1, 30), (6, 6)]
"""(prompt, completion) tokens of the rows."""


def rows(seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    draw = random.Random(seed)
    return tuple([[draw.randrange(4, 100) for _ in range(size[part])] for size in LENGTHS] for part in (0, 1))  # type: ignore[return-value]


@torch.no_grad()
def dense(model: Any, prompt: list[int], completion: list[int], temperature: float) -> tuple[np.ndarray, ...]:
    """Entropies, log-probabilities (T,) and all log-probabilities (T, V) of a row alone, in float64."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
    logps = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, dim=1)[: len(completion)]
    entropies = -(logps.exp() * logps).sum(dim=1)
    chosen = logps[torch.arange(len(completion)), torch.tensor(completion, dtype=torch.long)]
    return entropies.numpy(), chosen.numpy(), logps.numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_scores_are_those_of_a_dense_forward(temperature: float) -> None:
    model, (prompts, completions) = make_model(), rows()
    found = list(score_completions(model, prompts, completions, temperature=temperature, top=4))
    assert len(found) == len(LENGTHS)
    for one, prompt, completion in zip(found, prompts, completions, strict=True):
        entropies, logprobs, logps = dense(model, prompt, completion, temperature)
        np.testing.assert_allclose(one.entropies, entropies, atol=2e-5)
        np.testing.assert_allclose(one.logprobs, logprobs, atol=2e-5)
        assert one.top_ids.shape == one.top_logprobs.shape == (len(completion), 4)
        np.testing.assert_allclose(one.top_logprobs, -np.sort(-logps, axis=1)[:, :4], atol=2e-5)
        np.testing.assert_allclose(np.take_along_axis(logps, one.top_ids, axis=1), one.top_logprobs, atol=2e-5)
        kinds = [array.dtype.name for array in (one.entropies, one.logprobs, one.top_ids, one.top_logprobs)]
        assert kinds == ["float32", "float32", "int32", "float32"]


def test_scores_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (prompts, completions) = make_model(), rows()
    together = list(score_completions(model, prompts, completions, top=2))
    monkeypatch.setattr(forward, "CHUNK_ELEMENTS", 300)  # three positions of 100 logits
    for tokens_per_pass in (1, 40, 16384):
        parts = list(score_completions(model, prompts, completions, top=2, tokens_per_pass=tokens_per_pass))
        for one, other in zip(together, parts, strict=True):
            np.testing.assert_allclose(one.entropies, other.entropies, atol=1e-5)
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_the_order_is_that_of_the_rows_over_several_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (prompts, completions) = make_model(), rows()
    whole = list(score_completions(model, prompts, completions))
    monkeypatch.setattr(forward, "WINDOW_PASSES", 1)
    passed = list(score_completions(model, prompts, completions, tokens_per_pass=20))
    assert [len(one.entropies) for one in passed] == [size for _, size in LENGTHS]
    for one, other in zip(whole, passed, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_rows_of_like_length_go_together() -> None:
    # 10 and 9 fit into 20 tokens padded to 10; 4, 4 and 3 padded to 4 are 12, a fourth row would be 16 of 12.
    assert forward.passes([4, 10, 3, 9, 4], 20) == [[1, 3], [0, 4, 2]]
    assert forward.passes([4, 10, 3, 9, 4], 12) == [[1], [3], [0, 4, 2]]
    assert forward.passes([], 20) == []


def test_the_mode_of_the_model_is_restored_and_dropout_is_off() -> None:
    model, (prompts, completions) = make_model(attention_dropout=0.5).train(), rows()
    first, second = (list(score_completions(model, prompts, completions)) for _ in range(2))
    assert model.training
    np.testing.assert_array_equal(first[5].entropies, second[5].entropies)


def test_gradients_stay_on_between_results() -> None:
    model, (prompts, completions) = make_model(), rows()
    stream = score_completions(model, prompts, completions, tokens_per_pass=1)
    next(stream)
    assert torch.is_grad_enabled()


def test_no_rows_give_nothing() -> None:
    assert list(score_completions(make_model(), [], [])) == []


def test_what_cannot_be_scored_is_refused() -> None:
    model = make_model(max_position_embeddings=8)
    with pytest.raises(UserError, match="a prompt and its completion have 9 tokens, but the model reads 8 at most"):
        score_completions(model, [[4] * 5], [[4] * 4])
    with pytest.raises(UserError, match="a row has the token 100, but the model knows 100"):
        list(score_completions(model, [[4]], [[100]]))
    with pytest.raises(ValueError, match="a prompt has no token"):
        score_completions(model, [[]], [[4]])
    with pytest.raises(ValueError, match="2 prompts and 1 completions"):
        score_completions(model, [[4], [4]], [[4]])
    with pytest.raises(ValueError, match="temperature is 0"):
        score_completions(model, [[4]], [[4]], temperature=0)
    with pytest.raises(ValueError, match="top is 101, but the vocabulary has 100 tokens"):
        list(score_completions(model, [[4]], [[4]], top=101))


def test_scaled_and_capped_logits_are_followed() -> None:
    from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    small = {"vocab_size": 100, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.5}  # fmt: skip
    prompts, completions = rows()
    for model in (
        Gemma2ForCausalLM(Gemma2Config(head_dim=8, final_logit_softcapping=2.0, **small)).eval(),
        CohereForCausalLM(CohereConfig(logit_scale=0.25, **small)).eval(),
    ):
        found = list(score_completions(model, prompts, completions))
        entropies, logprobs, _ = dense(model, prompts[4], completions[4], 1.0)
        np.testing.assert_allclose(found[4].entropies, entropies, atol=5e-5)
        np.testing.assert_allclose(found[4].logprobs, logprobs, atol=5e-5)


def test_logits_that_are_made_in_another_way_are_refused() -> None:
    model = make_model()
    own = model.forward

    def shifted(**inputs: Any) -> Any:
        output = own(**inputs)
        output.logits = output.logits * 3
        return output

    model.forward = shifted
    with pytest.raises(UserError, match="the head of Qwen3ForCausalLM alone gives other logits than the model"):
        list(score_completions(model, [[4]], [[5]]))


def test_a_policy_is_opened_by_what_people_call_it(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", seed=3)
    run = tmp_path / "run"
    save_checkpoint(run, 9, seed=1)
    save_checkpoint(run, 10, seed=2)
    newest = open_policy(str(run))[0]
    torch.testing.assert_close(newest.lm_head.weight, make_model(2).lm_head.weight)
    model, tokenizer = open_policy(str(folder))
    assert not model.training
    assert tokenizer("ab")["input_ids"] == make_tokenizer()("ab")["input_ids"]
    assert open_policy("builtin")[0].config.vocab_size == 108
    with pytest.raises(UserError, match="does not exist"):
        open_policy(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="stands for 2 models"):
        open_policy(str(run / "checkpoints" / "*"))


def test_prompts_are_tokenized_as_training_does() -> None:
    tokenizer = make_tokenizer()
    assert prompt_ids_of(tokenizer, "1+1=") == [2, *(4 + 1 + ord(one) - 32 for one in "1+1=")]
    messages = [{"role": "user", "content": "hi"}]
    recorded = json.dumps(messages, sort_keys=True, ensure_ascii=False)
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert prompt_ids_of(tokenizer, recorded) == wanted["input_ids"]
    for text in ("[{not json", '[{"a": 1}]', "[1, 2]"):
        assert prompt_ids_of(tokenizer, text) == tokenizer(text)["input_ids"]
    with pytest.raises(UserError, match="has no tokens"):
        prompt_ids_of(lambda text: {"input_ids": []}, "x")
    bare = SimpleNamespace(chat_template=None)
    with pytest.raises(UserError, match="no chat template"):
        prompt_ids_of(bare, recorded)


@pytest.mark.slow
def test_recorded_entropies_are_found_again(tmp_path: Path) -> None:
    from rlvr.config.compose import compose
    from rlvr.rollouts.record import read_record
    from rlvr.train import train

    settings = ["run.steps=2", "rollouts.prompts=4", "rollouts.num_generations=4", "run.save_steps=1",
                "rollouts.record.every=1", "data.train_size=64", "data.heldout_size=4", "logging.report_to=[]",
                f"run.dir={tmp_path}", "run.name=x"]  # fmt: skip
    train(compose(settings))
    policies = ["builtin", str(tmp_path / "x" / "checkpoints" / "checkpoint-1")]
    for step, policy in enumerate(policies, 1):
        recorded = read_record(tmp_path / "x" / "rollouts" / f"step_{step:06d}.parquet")
        model, tokenizer = open_policy(policy)
        prompts = [prompt_ids_of(tokenizer, row["prompt"]) for row in recorded]
        scored = list(score_completions(model, prompts, [row["token_ids"] for row in recorded]))
        entropies = np.concatenate([one.entropies for one in scored])
        assert entropies.size > 50
        np.testing.assert_allclose(entropies, np.concatenate([row["entropies"] for row in recorded]), atol=1e-4)
        logprobs = np.concatenate([row["logprobs"] for row in recorded])
        np.testing.assert_allclose(np.concatenate([one.logprobs for one in scored]), logprobs, atol=1e-4)
