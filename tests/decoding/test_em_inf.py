"""EM-INF: by hand, against torch's Adam row by row, and that rows do not see one another."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from rlvr.assets import base_policy_path
from rlvr.config.convert import build_variant
from rlvr.decoding.em_inf import EMINF, em_inf_logits, entropy_and_gradient
from rlvr.errors import UserError
from rlvr.evaluation.backends.transformers import TransformersBackend
from rlvr.sampling.settings import Sampling
from tests.evaluation.tiny import requests_of

Z = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)


def draws(rows: int, words: int, seed: int = 0) -> Tensor:
    """Rows from nearly uniform to nearly decided."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, words, generator=generator) * torch.rand(rows, 1, generator=generator) * 6


def entropy(logits: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits.double()).entropy()


def test_the_gradient_by_hand() -> None:
    entropies, gradient, _ = entropy_and_gradient(Z)
    assert float(entropies) == pytest.approx(0.8324, abs=5e-5)
    assert gradient[0].tolist() == pytest.approx([-0.28259, 0.14077, 0.14182], abs=5e-6)
    stepped = Z - 0.1 * gradient  # one step of plain gradient descent
    assert stepped[0].tolist() == pytest.approx([2.02826, 0.98592, -0.01418], abs=5e-6)
    assert float(entropy(stepped)) == pytest.approx(0.8203, abs=5e-5)


def test_the_gradient_is_autograds_and_sums_to_zero() -> None:
    logits = draws(20, 50).double().requires_grad_()
    (expected,) = torch.autograd.grad(torch.distributions.Categorical(logits=logits).entropy().sum(), logits)
    gradient = entropy_and_gradient(logits.detach())[1]
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros(20).double(), atol=1e-12, rtol=0)


def test_steps_of_adam_by_hand() -> None:
    """The first step of Adam is lr per logit: up for p > exp(-H) = .435, down for the others."""
    one = em_inf_logits(Z, threshold=0.0, steps=1, lr=0.1, kl_weight=0.0)
    assert one[0].tolist() == pytest.approx([2.1, 0.9, -0.1], abs=1e-6)
    found = [float(entropy(em_inf_logits(Z, 0.0, steps, 0.1, 0.0))) for steps in range(5)]
    assert found == pytest.approx([0.8324, 0.7736, 0.7116, 0.6481, 0.5850], abs=5e-5)


def adam_alone(row: Tensor, threshold: float, steps: int, lr: float, kl_weight: float) -> Tensor:
    """The oracle: torch.optim.Adam and autograd on one row."""
    free = row.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=lr)
    before = torch.log_softmax(row, dim=-1)
    for _ in range(steps):
        optimizer.zero_grad()
        logs = torch.log_softmax(free, dim=-1)
        uncertainty = -(logs.exp() * logs).sum()
        if uncertainty < threshold:
            break
        (uncertainty + kl_weight * (before.exp() * (before - logs)).sum()).backward()
        optimizer.step()
    return free.detach()


@pytest.mark.parametrize(
    "numbers", [(0.3, 3, 0.1, 0.05), (0.3, 5, 0.1, 0.001), (1.2, 15, 0.05, 0.0), (0.5, 8, 0.2, 2.0)]
)
def test_each_row_is_what_torchs_adam_makes_of_it_alone(numbers: tuple[float, int, float, float]) -> None:
    logits = draws(60, 40).double()
    expected = torch.stack([adam_alone(row, *numbers) for row in logits])
    stopped = (expected == logits).all(dim=1)
    assert 0 < int(stopped.sum()) < 60
    torch.testing.assert_close(em_inf_logits(logits, *numbers), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kl_weight", [0.0, 0.001, 0.05])
@pytest.mark.parametrize("words", [2, 7, 400])
def test_entropy_never_rises_and_the_likeliest_token_stays(words: int, kl_weight: float) -> None:
    logits = draws(1000, words, seed=words)
    before = entropy(logits)
    for steps in (1, 3, 5, 15):
        changed = em_inf_logits(logits, 0.3, steps, 0.1, kl_weight)
        after = entropy(changed)
        assert bool((after <= before).all())
        assert torch.equal(changed.argmax(dim=1), logits.argmax(dim=1))
        moved = entropy(logits) > 0.3 + 1e-6
        assert bool((after < entropy(logits))[moved].all())
        before = after


def test_a_row_below_the_threshold_takes_no_step() -> None:
    logits = draws(200, 30)
    decided = entropy(logits) < 0.3
    assert 10 < int(decided.sum()) < 190
    changed = em_inf_logits(logits)
    assert torch.equal((changed == logits).all(dim=1), decided)
    assert torch.equal(em_inf_logits(logits, steps=0), logits)
    assert torch.equal(em_inf_logits(logits, threshold=5.0), logits)  # ln 30 = 3.4


@pytest.mark.parametrize("words", [30, 1001, 151_936])
def test_a_batch_is_its_rows_bit_for_bit_and_the_logits_stay(words: int) -> None:
    logits = draws(7, words)
    logits[3], logits[5, 1:] = 0.0, -torch.inf
    copy, together = logits.clone(), em_inf_logits(logits)
    assert torch.equal(logits, copy)
    assert torch.equal(torch.cat([em_inf_logits(row[None]) for row in logits]), together)
    assert torch.equal(em_inf_logits(logits[2:5]), together[2:5])


def test_a_token_that_cannot_come_stays_impossible() -> None:
    changed = em_inf_logits(torch.tensor([[1.0, 0.0, -torch.inf], [1.0, 0.0, -1e9]]), steps=1, kl_weight=0.0)
    torch.testing.assert_close(changed, torch.tensor([[1.1, -0.1, -torch.inf], [1.1, -0.1, -1e9]]))


def test_dtypes_and_empty_batches() -> None:
    logits = draws(5, 30).bfloat16()
    assert torch.equal(em_inf_logits(logits), em_inf_logits(logits.float()).bfloat16())
    assert em_inf_logits(logits[:0]).shape == (0, 30)


class RowByRow(LogitsProcessor):
    """Applies a rule in `generate`, and checks that each row is what it would be alone."""

    def __init__(self, rule: Any) -> None:
        self.rule, self.changed = rule, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        changed = self.rule(scores)
        assert torch.equal(torch.cat([self.rule(row[None]) for row in scores]), changed)
        self.changed += int((changed != scores).any(dim=1).sum())
        return changed


@pytest.mark.parametrize("name", ["em_inf", "adaptive_temperature"])
def test_generate_takes_the_rule_in_any_batch_size(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_policy_path()).eval()
    tokenizer = AutoTokenizer.from_pretrained(base_policy_path(), padding_side="left")
    rule = build_variant("decoding", {"name": name})
    prompts = ["7+4*2=", "12-5=", "3=", "3+4-2*5="]
    for batch in (prompts, prompts[:1]):
        processor = RowByRow(rule)
        inputs = tokenizer(batch, return_tensors="pt", padding=True, return_token_type_ids=False)
        torch.manual_seed(0)
        settings = {"do_sample": True, "temperature": 0.5, "max_new_tokens": 8}
        model.generate(**inputs, logits_processor=LogitsProcessorList([processor]), **settings)
        assert processor.changed > 0
        plain = LogitsProcessorList([lambda ids, scores: rule(scores)])  # as the documentation has it
        assert model.generate(**inputs, logits_processor=plain, **settings).shape[0] == len(batch)
    requests, sampling = requests_of(prompts, samples=2), Sampling(max_tokens=8)
    found = [
        {sample.key: sample for part in backend.generate(requests, sampling) for sample in part}
        for backend in (TransformersBackend(model, tokenizer, size, rule) for size in (1, 3, 64))
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("values", [{"threshold": -0.1}, {"steps": -1}, {"lr": 0.0}, {"kl_weight": math.nan}])
def test_numbers_that_are_none(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"decoding.{next(iter(values))} is .*; expected"):
        EMINF(**values)
    with pytest.raises(ValueError, match=rf"{next(iter(values))} is .*; expected"):
        em_inf_logits(Z, **values)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits are \(3,\); expected \(B, V\)"):
        em_inf_logits(Z[0])


def test_the_defaults_are_the_released_scripts() -> None:
    rule = build_variant("decoding", {"name": "em_inf"})
    assert (rule.threshold, rule.steps, rule.lr, rule.kl_weight) == (0.3, 3, 0.1, 0.05)
    logits = draws(5, 30)
    assert torch.equal(rule(logits), em_inf_logits(logits))
