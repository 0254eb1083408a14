"""Entropies with gradient, through the model's own forward: the right positions and temperature, and no others."""

from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from rlvr.trainer.entropy_head import EntropyTerms, chosen_positions, token_entropies
from rlvr.trainer.forward import Tokens, compacted_head, token_logps
from tests.trainer.tiny import make_qwen3

LOSS_TEMPERATURE, SAMPLING_TEMPERATURE = 0.5, 1.3
TERMS = EntropyTerms(LOSS_TEMPERATURE, SAMPLING_TEMPERATURE, logps=True, deciding=True)


def rows() -> tuple[Tokens, Tensor]:
    """Four rows of several lengths, padded on both sides, and chosen tokens; the third has none."""
    generator = torch.Generator().manual_seed(4)
    prompts, answers = torch.tensor([3, 1, 5, 2]), torch.tensor([6, 2, 4, 1])
    prompt_mask = (torch.arange(5) >= 5 - prompts.unsqueeze(1)).long()
    mask = (torch.arange(6) < answers.unsqueeze(1)).long()
    ids = torch.randint(2, 23, (4, 11), generator=generator)
    chosen = (torch.rand(4, 6, generator=generator) < 0.6) & mask.bool()
    chosen[2], chosen[0, 5], chosen[3, 0] = False, True, True
    return Tokens(ids[:, :5] * prompt_mask, prompt_mask, ids[:, 5:] * mask, mask), chosen


def by_hand(model: Any, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs, deciding entropies and loss entropies of all tokens, from full logits of each row without padding."""
    results = torch.zeros(3, *tokens.completion_ids.shape, dtype=next(model.parameters()).dtype)
    for row in range(len(results[0])):
        prompt = tokens.prompt_ids[row][tokens.prompt_mask[row].bool()]
        answer = tokens.completion_ids[row][tokens.completion_mask[row].bool()]
        logits = model(input_ids=torch.cat([prompt, answer]).unsqueeze(0)).logits[0, len(prompt) - 1 : -1]
        scaled = torch.log_softmax(logits / SAMPLING_TEMPERATURE, dim=-1)
        sharp = torch.log_softmax(logits / LOSS_TEMPERATURE, dim=-1)
        count = len(answer)
        deciding, entropies = (-(values.exp() * values).sum(dim=-1) for values in (scaled, sharp))
        values = (scaled[torch.arange(count), answer], deciding, entropies)
        filled = [torch.cat([value, value.new_zeros(results.shape[2] - count)]) for value in values]
        results = torch.stack([torch.cat([results[i, :row], filled[i][None], results[i, row + 1 :]]) for i in range(3)])
    return results[0], results[1], results[2]


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters()), "DDP waits for every gradient"
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("tied", [False, True])
def test_values_and_gradients_are_those_of_full_logits_without_padding(tied: bool) -> None:
    model, (tokens, chosen) = make_qwen3(tied=tied).double(), rows()
    add_fused_lm_head(model, temperature=SAMPLING_TEMPERATURE)  # as the trainer has it: the plain forward must be left
    wanted = by_hand(model, tokens)
    expected = gradients(model, wanted[2][chosen].square().sum() + 0.3 * wanted[0][chosen].sum())
    logps, deciding, entropies = token_entropies(model, model.get_output_embeddings(), tokens, chosen, TERMS)
    for got, values in zip((logps, deciding, entropies), wanted, strict=True):
        torch.testing.assert_close(got.double(), torch.where(chosen, values, 0.0), rtol=1e-5, atol=1e-6)
    assert not deciding.requires_grad
    found = gradients(model, entropies.square().sum() + 0.3 * logps.sum())
    for name, values in expected.items():
        error = float((found[name] - values).norm() / values.norm())  # Qwen3's norms compute in float32
        assert error < 1e-5, f"{name}: {error:.1e}"


def test_only_the_chosen_positions_are_projected_and_the_head_is_left_as_it_was() -> None:
    model, (tokens, chosen) = make_qwen3(), rows()
    head, shapes = model.get_output_embeddings(), []
    head.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    token_entropies(model, head, tokens, chosen, TERMS)
    assert shapes == [(1, int(chosen.sum()), 23)]
    assert not head._forward_pre_hooks
    assert model(input_ids=tokens.prompt_ids).logits.shape == (4, 5, 23)
    with pytest.raises(ValueError, match="positions"), chosen_positions(head, torch.ones(4, 3, dtype=torch.bool)):
        model(input_ids=tokens.prompt_ids)
    assert not head._forward_pre_hooks, "an error takes the hook away too"


def test_a_dummy_row_and_no_chosen_token_reach_every_parameter_with_zero() -> None:
    model, (tokens, chosen) = make_qwen3(), rows()
    dummy = Tokens.dummy(torch.device("cpu"))
    for given, projected in ((tokens, torch.zeros_like(chosen)), (dummy, torch.zeros(1, 1, dtype=torch.bool))):
        _, _, entropies = token_entropies(model, model.get_output_embeddings(), given, projected, TERMS)
        assert not any(value.any() for value in gradients(model, entropies.sum() * 0.0).values())


def test_at_equal_temperatures_the_numbers_are_those_of_the_fused_head() -> None:
    model, (tokens, chosen) = make_qwen3(), rows()
    add_fused_lm_head(model, temperature=SAMPLING_TEMPERATURE, outputs=("log_probs", "entropy"))
    terms = EntropyTerms(SAMPLING_TEMPERATURE, SAMPLING_TEMPERATURE, logps=True)
    logps, deciding, entropies = token_entropies(model, model.get_output_embeddings(), tokens, chosen, terms)
    with compacted_head(23, True):
        expected = token_logps(model, tokens, chosen)
    assert deciding is None
    torch.testing.assert_close(logps, expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(entropies.detach(), expected[1].detach(), rtol=1e-5, atol=1e-6)


def test_the_sampled_tokens_get_no_gradient_of_their_own() -> None:
    # The entropy at a position does not depend on the token drawn there: another last token, the same loss.
    model, (tokens, chosen) = make_qwen3(), rows()
    last = torch.zeros_like(chosen)
    last[0, 5] = True
    other = tokens.completion_ids.clone()
    other[0, 5] = (other[0, 5] + 1) % 23
    changed = Tokens(tokens.prompt_ids, tokens.prompt_mask, other, tokens.completion_mask)
    head = model.get_output_embeddings()
    first, second = (token_entropies(model, head, given, last, TERMS)[2] for given in (tokens, changed))
    assert torch.equal(first, second)
    assert float(first[0, 5].detach()) > 0
