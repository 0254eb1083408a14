"""Rollouts by our own sampler: the same on any number of ranks, and recorded as the forward pass would score them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr.errors import UserError
from rlvr.rollouts.dynamic import DynamicSection
from rlvr.trainer.batch import Sampled
from rlvr.trainer.scoring import scores_of
from tests.ranks import run_ranks
from tests.trainer.tiny_run import G, P, history, largest_difference, make_trainer, train, weights

ON_POLICY = {"steps_per_generation": 4, "gradient_accumulation_steps": 4, "num_iterations": 1, "max_steps": 3}
"""One optimizer step per rollout batch: what is recorded takes the place of the pass without gradient."""


def sampled_by(folder: Path, **changes: Any) -> tuple[Any, Sampled]:
    """A trainer of fresh weights and its first rows."""
    trainer = make_trainer(folder, **{**ON_POLICY, **changes})
    return trainer, trainer.sample(P)[0]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.6}, {"top_k": 5, "top_p": 0.9}])
def test_what_is_recorded_is_what_a_forward_pass_scores(settings: dict[str, Any], tmp_path: Path) -> None:
    """Whatever cuts the sampler: entropies and log-probabilities are of the whole vocabulary at the temperature."""
    trainer, sampled = sampled_by(tmp_path, **settings)
    everything = torch.ones(P * G, dtype=torch.bool)
    recorded = scores_of(trainer, sampled, everything)
    forward = scores_of(trainer, Sampled(sampled.tokens, sampled.rollouts, sampled.truncated), everything)
    assert recorded.recorded
    assert not forward.recorded
    lengths = sampled.tokens.completion_mask.sum(dim=1)
    assert lengths.min() < lengths.max(), "rows of different lengths leave the batch at different times"
    torch.testing.assert_close(recorded.entropies, forward.entropies, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(recorded.logps, forward.logps, rtol=1e-5, atol=1e-5)
    assert forward.entropies.std() > 0.01


def test_the_update_is_the_same_as_after_a_forward_pass(tmp_path: Path) -> None:
    recorded, forward = (
        train(tmp_path, record_scores=record, optim="sgd", learning_rate=0.1, **ON_POLICY) for record in (True, False)
    )
    assert largest_difference(weights(recorded), make_trainer(tmp_path).model.state_dict()) > 1e-3
    assert largest_difference(weights(recorded), weights(forward)) < 1e-5
    gaps = [row["sampling/entropy_gap"] for row in history(recorded)]
    assert len(gaps) == 3
    assert max(gaps) < 1e-5
    assert all("sampling/entropy_gap" not in row for row in history(forward))


def test_the_gap_shows_a_sampler_that_is_not_the_policy(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **ON_POLICY)
    take = trainer.sampler.take_recorded

    def doubled() -> Any:
        recorded = take()
        return type(recorded)([2 * values for values in recorded.entropies], recorded.logps)

    trainer.sampler.take_recorded = doubled
    trainer.train()
    assert min(row["sampling/entropy_gap"] for row in history(trainer)) > 1


@pytest.mark.parametrize("changes", [{}, {"num_iterations": 2}, {"gradient_accumulation_steps": 2}])
def test_scores_are_recorded_only_where_the_policy_that_sampled_is_updated(
    changes: dict[str, int], tmp_path: Path
) -> None:
    trainer, sampled = sampled_by(tmp_path, **changes)
    assert (sampled.recorded is not None) == (not changes) == trainer.on_policy


def test_carried_groups_are_scored_by_a_pass_of_their_own(tmp_path: Path) -> None:
    mixed = make_trainer(tmp_path, dynamic=DynamicSection(max_rounds=3, surplus="carry"), **ON_POLICY)
    dropping = make_trainer(tmp_path, dynamic=DynamicSection(max_rounds=3), **ON_POLICY)
    assert not mixed.sampler.record
    assert dropping.sampler.record


def test_rounds_of_dynamic_sampling_keep_what_was_recorded(tmp_path: Path) -> None:
    settings = DynamicSection(max_rounds=4, prompts=2)
    recorded, forward = (
        train(tmp_path, dynamic=settings, record_scores=record, optim="sgd", learning_rate=0.1, **ON_POLICY)
        for record in (True, False)
    )
    assert max(row["sampling/entropy_gap"] for row in history(recorded)) < 1e-5
    assert largest_difference(weights(recorded), weights(forward)) < 1e-5


def test_completions_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    def on_rank(rank: int) -> list[list[int]]:
        _, sampled = sampled_by(tmp_path / str(rank), ranks=2)
        return drawn(sampled)

    alone = drawn(sampled_by(tmp_path)[1])
    assert [row for part in run_ranks(2, on_rank) for row in part] == alone
    assert len({tuple(row) for row in alone}) > P * G // 2


TWO_UPDATES = {**ON_POLICY, "steps_per_generation": 4, "gradient_accumulation_steps": 2}


@pytest.mark.parametrize("sizes", [ON_POLICY, TWO_UPDATES])
@pytest.mark.parametrize("algorithm", ["dapo_top20", "dapo", "ktae"])
def test_two_ranks_that_share_the_work_evenly_make_the_update_of_one(
    algorithm: str, sizes: dict[str, Any], tmp_path: Path
) -> None:
    """Sampling included: whole groups move between the ranks, so that each has as much to train on."""
    settings = {**sizes, "optim": "sgd", "learning_rate": 0.1}

    def on_rank(rank: int) -> tuple[Any, Any, list[int]]:
        trainer = train(tmp_path / str(rank), algorithm, ranks=2, **settings)
        numbers = trainer.rollout.sampled.global_rows(trainer.ranks).tolist()
        return weights(trainer), history(trainer), numbers

    alone = train(tmp_path, algorithm, **settings)
    both = run_ranks(2, on_rank)
    assert largest_difference(weights(alone), make_trainer(tmp_path).model.state_dict()) > 1e-3
    for trained, rows, _ in both:
        assert largest_difference(weights(alone), trained) < 1e-5
        for one, two in zip(history(alone), rows, strict=True):
            for name in ("reward", "entropy", "selection/candidates", "selection/threshold"):
                assert one.get(name) == pytest.approx(two.get(name), abs=1e-5), name
    numbers = [each[2] for each in both]
    assert sorted(numbers[0] + numbers[1]) == list(range(P * G))
    if sizes is ON_POLICY:
        assert numbers != [list(range(P * G // 2)), list(range(P * G // 2, P * G))], "no group has moved"


def drawn(sampled: Sampled) -> list[list[int]]:
    """The completions without padding."""
    rows = zip(sampled.tokens.completion_ids, sampled.tokens.completion_mask.bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in rows]


def test_completions_depend_on_the_seed_and_the_place_in_the_stream(tmp_path: Path) -> None:
    trainer, first = sampled_by(tmp_path)
    second = trainer.sample(P)[0]
    assert drawn(first) != drawn(second)
    assert drawn(sampled_by(tmp_path)[1]) == drawn(first)
    assert drawn(sampled_by(tmp_path, seed=4)[1]) != drawn(first)


def test_sampling_leaves_the_generators_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **ON_POLICY)
    before = torch.get_rng_state()
    trainer.sample(P)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("change", [{"min_p": 0.1}, {"repetition_penalty": 1.1}, {"generation_kwargs": {"top_k": 3}}])
def test_trl_generates_where_only_trl_can(change: dict[str, Any], tmp_path: Path) -> None:
    trainer, sampled = sampled_by(tmp_path, **change)
    assert trainer.sampler is None
    assert sampled.recorded is None


def test_a_prompt_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, train_dataset=[{"prompt": "t2 " * 40}] * P, **ON_POLICY)
    trainer.model.config.max_position_embeddings = 40
    with pytest.raises(UserError, match="a prompt has 40 tokens, but the model reads 40 at most"):
        trainer.sample(P)


def test_a_rank_without_rows_names_the_metrics_of_the_others(tmp_path: Path) -> None:
    """One rank's groups are all solved: it forwards dummies only, and the means are those of the other rank."""

    def mixed_once(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(place == 0) if prompt == prompts[0] else 1.0 for place, prompt in enumerate(prompts)]

    def on_rank(rank: int) -> tuple[list[dict[str, float]], bool]:
        trainer = make_trainer(tmp_path / str(rank), ranks=2, reward_funcs=[mixed_once], **ON_POLICY)
        if rank:
            trainer.reward_funcs = [lambda completions, **_: [1.0] * len(completions)]
        trainer.train()
        return history(trainer), any(rows for step in trainer.rollout.plan for rows in step)

    (first, trains), (second, idles) = run_ranks(2, on_rank)
    assert (trains, idles) == (True, False)
    assert first == second
    assert all(0 < row["sampling/entropy_gap"] < 1e-5 for row in first)
