"""EM-RL's rewards and credit, and the constant credit: worked examples, masks, and what the trainer feeds them."""

import math
from dataclasses import replace

import pytest
import torch

from rlvr.advantages.constant import Constant
from rlvr.advantages.em_rl import EMRL, confidence
from rlvr.advantages.rloo import leave_one_out
from rlvr.config.algebra import BatchSizes
from rlvr.errors import UserError
from rlvr.maths.rollouts import Rollouts
from rlvr.objectives.clipped import Clipped
from rlvr.selection.all_tokens import AllTokens
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.decide import decide, rows_to_score
from tests.trainer.test_loss import ALONE, G, P, T, sampled

LOGPS = torch.tensor([[0.5, 0.8, 0.9, 0.1]]).log()
ENTROPIES = torch.tensor([[0.69, 0.5, 0.33, 9.0]])
THREE = torch.tensor([[True, True, True, False]])


@pytest.mark.parametrize(
    ("source", "aggregate", "nats"),
    [("sequence", "sum", -1.0217), ("sequence", "mean", -0.3406), ("token", "sum", -1.52), ("token", "mean", -0.5067)],
)
def test_the_rewards_of_the_worked_example(source: str, aggregate: str, nats: float) -> None:
    # p = (.5, .8, .9) and H = (.69, .5, .33); what stands beyond the mask does not count.
    assert float(confidence(LOGPS, ENTROPIES, THREE, source, aggregate)) == pytest.approx(nats, abs=5e-5)


def test_the_credit_of_the_worked_example_sums_to_zero() -> None:
    credit = leave_one_out(torch.tensor([-1.2, -2.0, -0.8, -1.6], dtype=torch.float64), 4)
    torch.testing.assert_close(credit, torch.tensor([0.2667, -0.8, 0.8, -0.2667]), rtol=0, atol=5e-5)
    assert float(credit.sum()) == pytest.approx(0, abs=1e-6)


def test_a_completion_without_tokens_is_left_out_of_the_baseline() -> None:
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    logps = torch.tensor([[-1.0, -3.0], [-1.0, 0.0], [0.0, 0.0]])
    rollouts = Rollouts(torch.zeros(3), torch.zeros(3), torch.zeros(3), 3, mask.long(), mask, logps, -logps)
    assert math.isnan(confidence(logps, logps, mask, "sequence")[2])
    torch.testing.assert_close(EMRL()(rollouts), torch.tensor([-1.0, 1.0, 0.0]))  # -2 against -1
    torch.testing.assert_close(EMRL(aggregate="sum")(rollouts), torch.tensor([-3.0, 3.0, 0.0]))  # -4 against -1


@pytest.mark.parametrize("source", ["sequence", "token"])
def test_the_trainer_feeds_the_numbers_of_the_policy_that_sampled_and_no_reward(source: str) -> None:
    batch, scores = sampled(3)
    algorithm = Algorithm(EMRL(source), AllTokens(), Clipped(mask_truncated=True))
    assert torch.equal(rows_to_score(batch, algorithm), batch.rollouts.mask.any(dim=1)), "cut rows stand in baselines"
    other = replace(batch, rollouts=replace(batch.rollouts, rewards=torch.rand(P * G), verdicts=torch.zeros(P * G)))
    sizes = BatchSizes(P, G, 1, 1, 4)
    credit = decide(batch, scores, algorithm, sizes, ALONE, T).advantages
    assert torch.equal(credit, decide(other, scores, algorithm, sizes, ALONE, T).advantages)
    values = scores.logps if source == "sequence" else -scores.entropies
    for start in range(0, P * G, G):
        own = {
            row: float(values[row][batch.rollouts.mask[row]].mean())
            for row in range(start, start + G)
            if batch.rollouts.mask[row].any()
        }
        for row, reward in own.items():
            others = [value for index, value in own.items() if index != row]
            assert float(credit[row]) == pytest.approx(reward - sum(others) / len(others), abs=1e-5)


def test_constant_credit_is_one_for_every_completion() -> None:
    batch, _ = sampled(3)
    unscorable = replace(batch.rollouts, rewards=torch.full((P * G,), float("nan")))
    assert torch.equal(Constant()(unscorable), torch.ones(P * G))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"advantage\.source is 'rows'; expected one of sequence, token"):
        EMRL(source="rows")
    with pytest.raises(UserError, match=r"advantage\.aggregate is 'max'"):
        EMRL(aggregate="max")
    with pytest.raises(UserError, match=r"advantage=em_rl with selection\.candidates=informative"):
        Algorithm(EMRL(), TopEntropy(candidates="informative"), Clipped())
    with pytest.raises(ValueError, match=r"rollouts\.logps"):
        EMRL()(sampled(3)[0].rollouts)
    with pytest.raises(ValueError, match="source is 'rows'"):
        confidence(LOGPS, ENTROPIES, THREE, "rows")
