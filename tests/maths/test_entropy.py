"""Token entropy against worked numbers, scipy and its closed-form gradient."""

import math

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from rlvr.maths import entropy as entropy_module
from rlvr.maths.entropy import entropy_and_logps, token_entropy


@pytest.mark.parametrize(("temperature", "nats"), [(1.0, 0.8324), (0.5, 0.4411), (2.0, 1.0202)])
def test_worked_numbers_of_three_logits(temperature: float, nats: float) -> None:
    assert float(token_entropy(torch.tensor([2.0, 1.0, 0.0]), temperature)) == pytest.approx(nats, abs=5e-5)


def test_uniform_logits_have_the_entropy_ln_v() -> None:
    torch.testing.assert_close(token_entropy(torch.full((2, 3, 50), 7.0)), torch.full((2, 3), math.log(50)))


@pytest.mark.parametrize("low", [-1e4, -math.inf])
def test_one_possible_token_has_entropy_zero_and_a_finite_gradient(low: float) -> None:
    logits = torch.tensor([[1e4, low, low]], requires_grad=True)
    entropy = token_entropy(logits)
    entropy.sum().backward()
    assert entropy.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(1, 3))


def test_a_token_of_logit_minus_infinity_counts_as_if_it_were_not_in_the_vocabulary() -> None:
    logits = torch.tensor([[2.0, -math.inf, 1.0, 0.0]], requires_grad=True)
    entropy = token_entropy(logits)
    torch.testing.assert_close(entropy, token_entropy(torch.tensor([[2.0, 1.0, 0.0]])))
    entropy.sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] == 0


def test_adding_a_constant_to_all_logits_changes_nothing() -> None:
    logits = torch.randn(20, 100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(token_entropy(logits + 37.0), token_entropy(logits), atol=2e-5, rtol=0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_scipy_finds_the_same_entropy(temperature: float) -> None:
    logits = torch.randn(4, 5, 200, generator=torch.Generator().manual_seed(1)) * 4
    expected = scipy_entropy(softmax(logits.double().numpy() / temperature, axis=-1), axis=-1)
    torch.testing.assert_close(token_entropy(logits, temperature), torch.from_numpy(expected).float())


def test_chunks_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 3, 11, generator=torch.Generator().manual_seed(2))
    whole = token_entropy(logits)
    monkeypatch.setattr(entropy_module, "CHUNK_ELEMENTS", 4 * 11 + 5)  # four tokens at a time: 21 = 5 * 4 + 1
    assert torch.equal(token_entropy(logits), whole)


def test_a_vocabulary_larger_than_a_chunk_goes_one_token_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy_module, "CHUNK_ELEMENTS", 2)
    torch.testing.assert_close(token_entropy(torch.zeros(3, 5)), torch.full((3,), math.log(5)))


def test_bfloat16_logits_are_computed_in_float32() -> None:
    logits = (torch.randn(64, 500, generator=torch.Generator().manual_seed(3)) * 3).bfloat16()
    entropy = token_entropy(logits)
    assert entropy.dtype == torch.float32
    expected = scipy_entropy(softmax(logits.double().numpy(), axis=-1), axis=-1)
    torch.testing.assert_close(entropy, torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5)


def test_the_gradient_is_minus_p_times_log_p_plus_h() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
    token_entropy(logits).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([-0.28259, 0.14077, 0.14182]), atol=1e-5, rtol=0)
    many = (torch.randn(6, 40, generator=torch.Generator().manual_seed(4)) * 3).requires_grad_()
    token_entropy(many, temperature=1.5).sum().backward()
    logps = torch.log_softmax(many.detach().double() / 1.5, dim=-1)
    entropy = -(logps.exp() * logps).sum(-1, keepdim=True)
    torch.testing.assert_close(many.grad.double(), -logps.exp() * (logps + entropy) / 1.5, atol=1e-6, rtol=1e-5)


def test_no_tokens_give_no_entropies_and_keep_the_graph() -> None:
    logits = torch.zeros(2, 0, 5, requires_grad=True)
    entropy = token_entropy(logits)
    assert entropy.shape == (2, 0)
    assert entropy.dtype == torch.float32
    entropy.sum().backward()
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature is .*expected a positive number"):
        token_entropy(torch.zeros(1, 3), temperature)


def dense(logits: torch.Tensor, temperature: float, targets: torch.Tensor, other: float) -> tuple:
    """By plain autograd."""
    logps = torch.log_softmax(logits / temperature, dim=-1)
    picked = torch.log_softmax(logits / other, dim=-1).gather(1, targets.unsqueeze(1)).squeeze(1)
    return -(logps.exp() * logps).sum(dim=-1), picked


def test_the_gradient_of_three_logits_is_the_closed_form() -> None:
    # dH/dz_v = -p_v (ln p_v + H) with p = (.66524, .24473, .09003), H = .83240
    logits = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    entropy_and_logps(logits, 1.0)[0].sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.28259, 0.14077, 0.14182]]), rtol=0, atol=1e-5)
    assert float(logits.grad.sum()) == pytest.approx(0, abs=1e-7)


def test_the_temperature_of_the_loss_is_its_own() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    entropy, logps = entropy_and_logps(logits, 0.5, torch.tensor([0]), 1.0)
    assert float(entropy) == pytest.approx(0.4411, abs=5e-5)
    assert float(logps) == pytest.approx(math.log(0.66524), abs=1e-5)


@pytest.mark.parametrize("chunk", [1 << 24, 23, 60])
def test_values_and_gradients_equal_plain_autograd(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy_module, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(2)
    logits = (4 * torch.randn(11, 23, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 23, (11,), generator=generator)
    weights = torch.randn(2, 11, generator=generator, dtype=torch.float64)
    results = []
    for values in (dense(logits, 0.5, targets, 1.3), entropy_and_logps(logits, 0.5, targets, 1.3)):
        total = (weights[0] * values[0]).sum() + (weights[1] * values[1]).sum()
        results.append([*values, *torch.autograd.grad(total, logits)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda z: entropy_and_logps(z, 0.7, targets, 1.3), (logits,))


def test_the_backward_pass_keeps_the_logits_and_nothing_else_of_their_size() -> None:
    logits = torch.randn(40, 500, requires_grad=True)
    kept: list[int] = []

    def note(saved: torch.Tensor) -> torch.Tensor:
        kept.append(saved.untyped_storage().nbytes())
        assert saved.numel() < 500 or saved.data_ptr() == logits.data_ptr()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        entropy_and_logps(logits, 1.0, torch.zeros(40, dtype=torch.long), 1.0)[0].sum().backward()
    assert sorted(kept)[:-1] == [40 * 4, 40 * 8], "entropies and targets"


def test_no_positions_give_a_gradient_of_nothing_and_impossible_tokens_a_finite_one() -> None:
    nothing = torch.zeros(0, 7, requires_grad=True)
    entropy, logps = entropy_and_logps(nothing, 1.0, torch.zeros(0, dtype=torch.long))
    (entropy.sum() + logps.sum()).backward()
    assert nothing.grad.shape == (0, 7)
    logits = torch.tensor([[2.0, -math.inf, 1.0, 0.0]], requires_grad=True)
    entropy, logps = entropy_and_logps(logits, 1.0, torch.tensor([0]))
    (entropy.sum() + logps.sum()).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] == 0


def test_without_targets_there_are_no_log_probabilities_and_bad_temperatures_are_refused() -> None:
    entropy, logps = entropy_and_logps(torch.randn(3, 5, requires_grad=True), 1.0)
    assert entropy.requires_grad
    assert not logps.requires_grad
    assert not logps.any()
    with pytest.raises(ValueError, match="temperature is 0"):
        entropy_and_logps(torch.zeros(1, 2), 0.0)
