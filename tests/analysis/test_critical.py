"""Contrastive scores: the worked example, the limits, and two models against their own logits."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from rlvr.analysis import forward
from rlvr.analysis.critical import contrastive, critical_scores
from rlvr.errors import UserError
from tests.analysis.test_scoring import LENGTHS, rows
from tests.evaluation.tiny import make_model


def test_the_worked_example() -> None:
    # 2 z_p - z_n = (0, 3, 0): e^0 = 1 and e^3 = 20.0855 over 22.0855.
    positive, negative = torch.tensor([[1.0, 2.0, 0.0]] * 3), torch.tensor([[2.0, 1.0, 0.0]] * 3)
    found = contrastive(positive, negative, torch.arange(3))
    np.testing.assert_allclose(found.numpy(), [0.0453, 0.9094, 0.0453], atol=5e-5)


def test_without_contrast_it_is_the_probability() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 8, 8])
    plain = torch.softmax(logits, dim=1)[torch.arange(4), targets]
    torch.testing.assert_close(contrastive(logits, torch.zeros(4, 9), targets, beta=0.0), plain)
    torch.testing.assert_close(contrastive(logits, logits, targets, beta=3.0), plain)


def test_it_is_a_quotient_of_probabilities() -> None:
    random = np.random.default_rng(0)
    positive, negative = random.normal(size=(5, 7)), random.normal(size=(5, 7))
    p, n = softmax(positive, axis=1), softmax(negative, axis=1)
    ratio = p**1.5 / n**0.5
    wanted = (ratio / ratio.sum(axis=1, keepdims=True))[np.arange(5), 2]
    found = contrastive(torch.tensor(positive), torch.tensor(negative), torch.full((5,), 2), beta=0.5)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)


def test_tokens_that_nobody_allows_are_no_infinities() -> None:
    never = -torch.inf
    positive, negative = torch.tensor([[0.0, never, never]] * 3), torch.tensor([[0.0, never, 0.0]] * 3)
    assert contrastive(positive, negative, torch.arange(3)).tolist() == [1.0, 0.0, 0.0]


def test_two_models_against_their_own_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    positive, negative, (prompts, completions) = make_model(0), make_model(1), rows()
    whole = list(critical_scores(positive, negative, prompts, completions, beta=0.7))
    assert [len(scores) for scores in whole] == [size for _, size in LENGTHS]
    for scores, prompt, completion in zip(whole, prompts, completions, strict=True):
        ids = torch.tensor([prompt + completion])
        with torch.no_grad():
            p, n = (model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double() for model in (positive, negative))
        wanted = softmax(1.7 * p.numpy() - 0.7 * n.numpy(), axis=1)[np.arange(len(completion)), completion]
        np.testing.assert_allclose(scores, wanted, atol=2e-5)
    monkeypatch.setattr(forward, "CHUNK_ELEMENTS", 300)
    parts = list(critical_scores(positive, negative, prompts, completions, beta=0.7, tokens_per_pass=20))
    np.testing.assert_allclose(np.concatenate(whole), np.concatenate(parts), atol=1e-5)


def test_a_planted_token_is_found() -> None:
    """The negative policy likes one token everywhere; where it stands, the score is lowest."""
    positive, (prompts, _) = make_model(0, sharp=0.02), rows()
    negative = make_model(0, sharp=0.02)
    planted, plain = 50, [60, 61, 62, 63]

    def likes(module: object, inputs: object, logits: torch.Tensor) -> torch.Tensor:
        bonus = torch.zeros(logits.shape[-1])
        bonus[planted] = 6.0
        return logits + bonus

    negative.lm_head.register_forward_hook(likes)
    scores = next(critical_scores(positive, negative, prompts[:1], [[*plain[:2], planted, *plain[2:]]]))
    assert scores.argmin() == 2
    assert scores[2] < 0.01 * np.delete(scores, 2).min()


def test_what_does_not_fit_is_refused() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="beta is -1"):
        critical_scores(model, model, [[4]], [[5]], beta=-1)
    other = make_model()
    other.resize_token_embeddings(104)
    with pytest.raises(UserError, match="the policies know 100 and 104 tokens; expected one vocabulary"):
        list(critical_scores(model, other, [[4]], [[5]]))
