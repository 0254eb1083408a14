"""Entropy minimisation as an objective: its loss by hand, its reductions, and what it refuses."""

import pytest
import torch

from rlvr.advantages.constant import Constant
from rlvr.advantages.em_rl import EMRL
from rlvr.advantages.grpo import GRPO
from rlvr.config.algebra import BatchSizes
from rlvr.errors import UserError
from rlvr.objectives.base import Objective
from rlvr.objectives.clipped import Clipped
from rlvr.objectives.entropy import Entropy
from rlvr.selection.all_tokens import AllTokens
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm, named_algorithm
from rlvr.trainer.decide import decide
from rlvr.trainer.loss import cut_slice, slice_loss
from tests.trainer.test_loss import ALONE, G, P, T, sampled

RATIO = torch.tensor([[1.0, 3.0]])
ENTROPIES = torch.tensor([[0.4, 1.2]])


def loss_of(objective: Entropy, keep: float = 1.0, updates: int = 1) -> tuple[float, torch.Tensor, torch.Tensor]:
    """(loss of the first step, entropies with their gradient, kept tokens) of a random batch."""
    batch, scores = sampled(5)
    selection = AllTokens() if keep == 1 else TopEntropy(keep=keep)
    algorithm = Algorithm(Constant(), selection, objective)
    decided = decide(batch, scores, algorithm, BatchSizes(P, G, updates, 1, 2), ALONE, T)
    entropies = torch.rand(P * G, T, generator=torch.Generator().manual_seed(1)).requires_grad_()
    total = torch.zeros(())
    for index in range(P * G // updates // 2):
        part = cut_slice(decided, 0, index, ALONE, on_policy=False)
        own = torch.where(part.projected, entropies[part.rows][:, : part.projected.shape[1]], 0.0)
        total = total + slice_loss(part, torch.zeros_like(own), None, objective, ALONE, loss_entropies=own)[0]
    total.backward()
    return float(total.detach()), entropies, decided.kept


def test_a_token_loses_its_entropy_whatever_its_credit_and_its_ratio() -> None:
    for advantage in (-1.0, 0.0, 2.0):
        losses = Entropy().token_losses(RATIO, torch.full((1, 1), advantage), ENTROPIES)
        assert torch.equal(losses, ENTROPIES)
    assert Entropy().measures(RATIO, torch.ones(1, 1), ENTROPIES).keys() == set(Entropy.measured)


def test_sequence_sum_adds_up_tokens_and_averages_completions() -> None:
    loss, entropies, kept = loss_of(Entropy(reduction="sequence_sum"))
    rows = [float(values[mask].sum()) for values, mask in zip(entropies, kept, strict=True) if mask.any()]
    assert len(rows) == P * G - 1, "the empty completion is no row"
    assert loss == pytest.approx(sum(rows) / len(rows), rel=1e-5)


def test_the_other_reductions_by_hand() -> None:
    loss, entropies, kept = loss_of(Entropy(), keep=0.3)
    assert loss == pytest.approx(float(entropies[kept].mean()), rel=1e-5)
    loss, entropies, kept = loss_of(Entropy(reduction="sequence_mean"))
    means = [float(values[mask].mean()) for values, mask in zip(entropies, kept, strict=True) if mask.any()]
    assert loss == pytest.approx(sum(means) / len(means), rel=1e-5)


@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_only_kept_tokens_have_a_gradient_and_all_of_them_have(keep: float) -> None:
    _, entropies, kept = loss_of(Entropy(), keep)
    assert torch.equal(entropies.grad != 0, kept)
    assert 0 < int(kept.sum()) < kept.numel()


def test_no_row_is_free_of_gradient() -> None:
    assert Entropy().reaches_every_row
    assert Clipped(beta=0.1).reaches_every_row
    assert not Clipped().reaches_every_row


def test_the_named_algorithms_have_the_papers_numbers() -> None:
    tuned, one_shot = named_algorithm("em_ft"), named_algorithm("one_shot_em")
    assert (tuned.objective.temperature, tuned.objective.reduction) == (1.0, "sequence_sum")
    assert (one_shot.objective.temperature, one_shot.objective.reduction) == (0.5, "token_mean")
    for name, source in (("em_rl_sequence", "sequence"), ("em_rl_token", "token")):
        algorithm = named_algorithm(name)
        assert (algorithm.advantage.source, algorithm.advantage.aggregate) == (source, "mean")
        assert algorithm.objective.beta == 0.001
    assert not any(named_algorithm(name).uses_rewards for name in ("em_ft", "one_shot_em", "em_rl_token"))
    assert named_algorithm("dapo").uses_rewards
    assert Algorithm(Constant(), TopEntropy(candidates="informative"), Entropy()).uses_rewards


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"objective\.temperature is 0"):
        Entropy(temperature=0)
    with pytest.raises(UserError, match=r"objective\.beta is -1"):
        Entropy(beta=-1)
    for advantage, name in ((GRPO(), "grpo"), (EMRL(), "em_rl")):
        with pytest.raises(UserError, match=f"advantage={name} with objective=entropy.*set advantage=constant"):
            Algorithm(advantage, AllTokens(), Entropy())
    with pytest.raises(ValueError, match="entropies is None"):
        Entropy().token_losses(RATIO, torch.ones(1, 1), None)
    with pytest.raises(TypeError, match="does not say what a token loses"):
        Objective().token_losses(RATIO, torch.ones(1, 1), None)


def test_one_completion_per_prompt_is_for_those_that_compare_none() -> None:
    algorithm = Algorithm(Constant(), AllTokens(), Entropy())
    algorithm.check_group_size(1)
    with pytest.raises(UserError, match=r"num_generations is 1 with rollouts\.backend=vllm"):
        algorithm.check_group_size(1, vllm=True)
    algorithm.check_group_size(2, vllm=True)
    with pytest.raises(UserError, match=r"num_generations is 1 with advantage=em_rl, which compares.*at least 2"):
        named_algorithm("em_rl_token").check_group_size(1)
    with pytest.raises(UserError, match=r"selection\.candidates=informative; the verdicts of one completion"):
        Algorithm(Constant(), TopEntropy(candidates="informative"), Entropy()).check_group_size(1)
