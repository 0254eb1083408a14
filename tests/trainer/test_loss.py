"""Slices: planning, dropping and trimming change no loss and no gradient, for every scope, reduction and normaliser."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.advantages.grpo import GRPO
from rlvr.config.algebra import BatchSizes
from rlvr.errors import UserError
from rlvr.maths.rollouts import Rollouts
from rlvr.objectives.clipped import Clipped
from rlvr.selection.bottom_entropy import BottomEntropy
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm, named_algorithm
from rlvr.trainer.batch import Ranks, RolloutBatch, Sampled, Scores
from rlvr.trainer.decide import decide, rows_to_score
from rlvr.trainer.forward import Tokens
from rlvr.trainer.inside import narrowed
from rlvr.trainer.loss import cut_slice, slice_loss

P, G, T = 4, 4, 9
ALONE = Ranks()


def sampled(seed: int, truncated_rows: bool = True) -> tuple[Sampled, Scores]:
    """A random batch; the second group is solved, some rows are cut, one is empty."""
    generator = torch.Generator().manual_seed(seed)
    rows = P * G
    lengths = torch.randint(1, T + 1, (rows, 1), generator=generator)
    lengths[6], lengths[9], lengths[13] = 0, T, T
    mask = torch.arange(T) < lengths
    rewards = torch.randint(0, 2, (rows,), generator=generator).float()
    rewards[:2], rewards[G : 2 * G] = torch.tensor([0.0, 1.0]), 1.0
    prompts = torch.ones(rows, 3, dtype=torch.long)
    ids = torch.randint(2, 20, (rows, T), generator=generator)
    tokens = Tokens(prompts, prompts, ids, mask.long())
    cut = (lengths.squeeze(1) == T) & truncated_rows
    entropies = torch.rand(rows, T, generator=generator) * mask
    old = -torch.rand(rows, T, generator=generator) * mask
    ref = -torch.rand(rows, T, generator=generator) * mask
    rollouts = Rollouts(rewards, rewards, rewards, G, ids, mask)
    return Sampled(tokens, rollouts, cut), Scores(old, entropies, ref, torch.ones(rows, dtype=torch.bool))


def train(
    batch: RolloutBatch, sizes: BatchSizes, algorithm: Algorithm, logps: Tensor, sparse: bool = True
) -> list[Tensor]:
    """Losses by step; the gradient gathers in `logps` (rows, T), which plays the policy."""
    losses = []
    for step in range(sizes.updates_per_rollout):
        total = torch.zeros(())
        for index in range(sizes.slices_per_step):
            part = cut_slice(batch, step, index, ALONE, on_policy=False, sparse=sparse)
            shape = part.projected.shape
            own = torch.zeros(shape) if part.empty else logps[part.rows][:, : shape[1]]
            entropies = batch.scores.entropies[part.rows][:, : shape[1]]
            if algorithm.selection.inside_loss:
                part, _ = narrowed(part, entropies, algorithm, ALONE)
            loss, _ = slice_loss(part, torch.where(part.projected, own, 0.0), entropies, algorithm.objective, ALONE)
            total = total + loss
        if total.requires_grad:
            total.backward()
        losses.append(total.detach())
    return losses


def result(algorithm: Algorithm, updates: int, micro: int, plan: bool, sparse: bool, window: str = "group") -> Any:
    """(losses, gradient) of one way to cut the same batch."""
    batch, scores = sampled(3)
    sizes = BatchSizes(P, G, updates, 2, micro, 1, window)
    decided = decide(batch, scores, algorithm, sizes, ALONE, T, plan_rows=plan)
    noise = torch.randn(P * G, T, generator=torch.Generator().manual_seed(9))
    logps = (scores.logps + 0.3 * noise).requires_grad_()
    losses = train(decided, sizes, algorithm, logps, sparse)
    return torch.stack(losses), logps.grad


SETTINGS = list(
    itertools.product(
        ("rollout", "group", "sequence"), ("kept", "all"),
        ("token_mean", "token_mean_rollout", "sequence_mean", "constant"), (0.0, 0.05), (False, True),
    )
)  # fmt: skip


@pytest.mark.parametrize("updates", [1, 2])
def test_planning_changes_neither_loss_nor_gradient(updates: int) -> None:
    for scope, normalizer, reduction, beta, mask_truncated in SETTINGS:
        selection = TopEntropy(keep=0.3, scope=scope, normalizer=normalizer, candidates="informative")
        objective = Clipped(beta=beta, reduction=reduction, mask_truncated=mask_truncated, epsilon_high=0.28)
        algorithm = Algorithm(GRPO(), selection, objective)
        losses, gradient = result(algorithm, updates, P * G // updates, plan=False, sparse=False)
        assert gradient.abs().max() > 0
        for micro, sparse in ((1, True), (2, True), (4, False), (P * G // updates, True)):
            label = f"{scope} {normalizer} {reduction} beta {beta} micro {micro} sparse {sparse}"
            other_losses, other_gradient = result(algorithm, updates, micro, plan=True, sparse=sparse)
            torch.testing.assert_close(other_losses, losses, rtol=1e-5, atol=1e-6, msg=label)
            torch.testing.assert_close(other_gradient, gradient, rtol=1e-5, atol=1e-7, msg=label)


@pytest.mark.parametrize("window", ["group", "row"])
def test_the_updates_of_a_rollout_batch_partition_its_rows(window: str) -> None:
    batch, scores = sampled(3)
    algorithm = named_algorithm("dapo")
    decided = decide(batch, scores, algorithm, BatchSizes(P, G, 2, 2, 2, 1, window), ALONE, T, plan_rows=False)
    step_of = {row: step for step, slices in enumerate(decided.plan) for part in slices for row in part}
    assert sorted(step_of) == list(range(P * G))
    assert all(step == (row // G if window == "group" else row) % 2 for row, step in step_of.items())


def test_dropped_tokens_get_exactly_zero_gradient_without_kl() -> None:
    batch, scores = sampled(3)
    algorithm = named_algorithm("dapo_top20")
    decided = decide(batch, scores, algorithm, BatchSizes(P, G, 1, 2, 4), ALONE, T)
    _, gradient = result(algorithm, 1, 4, plan=True, sparse=False)
    assert int(decided.kept.sum()) == decided.selection.kept
    assert torch.equal(gradient != 0, (gradient != 0) & decided.kept)
    assert (gradient[~decided.kept] == 0).all()


def test_keep_one_equals_all_tokens_bit_for_bit() -> None:
    everything = Algorithm(GRPO(), named_algorithm("dapo").selection, Clipped())
    keep_one = Algorithm(GRPO(), TopEntropy(keep=1.0, normalizer="all"), Clipped())
    for first, second in zip(result(everything, 2, 2, True, True), result(keep_one, 2, 2, True, True), strict=True):
        assert torch.equal(first, second)


def test_released_normaliser_is_the_row_weighted_mean_of_kept_means() -> None:
    algorithm = Algorithm(GRPO(), TopEntropy(keep=0.4, scope="micro_batch", normalizer="released"), Clipped())
    batch, scores = sampled(3, truncated_rows=False)
    sizes = BatchSizes(P, G, 1, 2, 4)
    losses, _ = result(algorithm, 1, 4, plan=True, sparse=True)
    decided = decide(batch, scores, algorithm, sizes, ALONE, T)
    noise = torch.randn(P * G, T, generator=torch.Generator().manual_seed(9))
    ratio = torch.exp(0.3 * noise)
    expected = 0.0
    for start in range(0, P * G, 4):
        rows = slice(start, start + 4)
        mask = batch.tokens.completion_mask[rows].bool()
        count = -(-4 * int(mask.sum()) // 10)  # ceil(0.4 N)
        kept = torch.zeros_like(mask)
        kept.view(-1)[torch.where(mask, scores.entropies[rows], -1.0).view(-1).topk(count).indices] = True
        objective = -torch.minimum(
            ratio[rows] * decided.advantages[rows], ratio[rows].clamp(0.8, 1.2) * decided.advantages[rows]
        )
        expected += float(objective[kept].mean()) * 4 / (P * G)
    assert float(losses[0]) == pytest.approx(expected, rel=1e-5)


def test_micro_batch_scopes_keep_what_a_pool_of_the_slice_keeps() -> None:
    algorithm = Algorithm(GRPO(), TopEntropy(keep=0.2, scope="micro_batch"), Clipped())
    batch, scores = sampled(3)
    decided = decide(batch, scores, algorithm, BatchSizes(P, G, 1, 2, 2), ALONE, T)
    tokens = batch.tokens.completion_mask.sum(dim=1)
    per_slice = [-(-int(tokens[start : start + 2].sum()) // 5) for start in range(0, P * G, 2)]
    assert decided.step_counts[0].kept == sum(per_slice)
    assert decided.policy_divisors == [[float(sum(per_slice))] * (P * G // 2)]


def test_truncated_rows_keep_their_reward_in_the_baseline_and_leave_every_count() -> None:
    batch, scores = sampled(3)
    sizes = BatchSizes(P, G, 1, 2, 4)
    free = decide(batch, scores, Algorithm(GRPO(), TopEntropy(), Clipped()), sizes, ALONE, T)
    masked = decide(batch, scores, Algorithm(GRPO(), TopEntropy(), Clipped(mask_truncated=True)), sizes, ALONE, T)
    lost = int(batch.tokens.completion_mask[batch.truncated].sum())
    assert lost > 0
    assert torch.equal(free.advantages, masked.advantages)
    assert masked.step_counts[0].tokens == free.step_counts[0].tokens - lost
    assert masked.step_counts[0].rows == free.step_counts[0].rows - int(batch.truncated.sum())
    assert not masked.kept[batch.truncated].any()


def test_a_step_is_empty_where_its_denominator_is_zero() -> None:
    batch, scores = sampled(3)
    solved = replace(batch, rollouts=replace(batch.rollouts, rewards=torch.ones(P * G), verdicts=torch.ones(P * G)))
    sizes = BatchSizes(P, G, 1, 2, 4)
    for normalizer, empty in (("kept", True), ("all", False)):
        selection = TopEntropy(candidates="informative", normalizer=normalizer)
        assert decide(solved, scores, Algorithm(GRPO(), selection, Clipped()), sizes, ALONE, T).is_empty(0) is empty
        assert not decide(batch, scores, Algorithm(GRPO(), selection, Clipped()), sizes, ALONE, T).is_empty(0)


def test_only_rows_that_vote_or_train_are_scored() -> None:
    batch, _ = sampled(3)
    informative = rows_to_score(batch, named_algorithm("dapo_top20"))
    assert not informative[G : 2 * G].any(), "a solved group neither votes nor trains"
    with_kl = Algorithm(GRPO(), TopEntropy(candidates="informative"), Clipped(beta=0.1))
    everything = rows_to_score(batch, with_kl)
    assert everything.sum() == P * G - 1, "a KL term on all tokens reaches every row but the empty one"


def test_top_and_bottom_partition_the_candidates_of_a_batch() -> None:
    batch, scores = sampled(3)
    sizes = BatchSizes(P, G, 1, 2, 4)
    top = decide(batch, scores, Algorithm(GRPO(), TopEntropy(keep=0.2), Clipped()), sizes, ALONE, T)
    bottom = decide(batch, scores, Algorithm(GRPO(), BottomEntropy(keep=0.8), Clipped()), sizes, ALONE, T)
    assert torch.equal(top.kept ^ bottom.kept, top.candidates)


def test_contradictions_between_the_three_answers_are_refused() -> None:
    released = TopEntropy(scope="micro_batch", normalizer="released")
    with pytest.raises(UserError, match="reduction=token_mean"):
        Algorithm(GRPO(), released, Clipped(reduction="constant"))
    with pytest.raises(UserError, match=r"objective\.beta=0"):
        Algorithm(GRPO(), released, Clipped(beta=0.1))
    with pytest.raises(UserError, match="kl_tokens"):
        Algorithm(GRPO(), TopEntropy(scope="micro_batch"), Clipped(beta=0.1, kl_tokens="kept"))
