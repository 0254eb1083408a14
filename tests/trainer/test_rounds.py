"""Dynamic sampling against a stub whose accuracies are known: rounds, whole groups, surplus, the limit, two ranks."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rlvr.config.algebra import BatchSizes
from rlvr.config.schema import RolloutsSection
from rlvr.errors import UserError
from rlvr.rollouts.dynamic import DynamicSection
from rlvr.trainer.batch import Ranks, Scores
from rlvr.trainer.groups import Group, assemble, keep_scores, split, use_kept_scores
from rlvr.trainer.rounds import Rounds
from tests.ranks import run_ranks

G = 4
SOLVED, NEVER, MIXED = (1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 0, 1)


def group(prompt: int, verdicts: tuple[int, ...]) -> Group:
    """A group of rows of different lengths; token 100 * prompt + row tells whose they are."""
    ids = [torch.full((1 + (prompt + row) % 3,), 100 * prompt + row) for row in range(G)]
    rewards = torch.tensor(verdicts, dtype=torch.float32)
    return Group(
        -1, {"prompt": str(prompt)}, torch.arange(1 + prompt % 2), ids, torch.stack([rewards, rewards * 0.5], dim=1),
        1.5 * rewards, torch.zeros(G, dtype=torch.bool), [f"{prompt}/{row}" for row in range(G)], [],
    )  # fmt: skip


def sizes(prompts: int, ranks: Ranks | None = None) -> BatchSizes:
    """One optimizer step from so many prompts."""
    return BatchSizes(prompts, G, micro_batch_rows=1, ranks=(ranks or Ranks()).count)


class Stub:
    """Prompts with known verdicts, shared out to ranks as the trainer does."""

    def __init__(self, verdicts: list[tuple[int, ...]], ranks: Ranks) -> None:
        self.stream: Iterator[tuple[int, tuple[int, ...]]] = iter(list(enumerate(verdicts)))
        self.ranks, self.rounds = ranks, 0

    def __call__(self, count: int) -> list[Group]:
        self.rounds += 1
        asked = [next(self.stream) for _ in range(count)]
        share = count // self.ranks.count
        mine = asked[self.ranks.index * share : (self.ranks.index + 1) * share]
        return [group(prompt, verdicts) for prompt, verdicts in mine]


def filled(verdicts: list[tuple[int, ...]], prompts: int, ranks: Ranks | None = None, **settings: Any) -> Any:
    """(rounds object, stub, names of the prompts of the batch)."""
    ranks = ranks or Ranks()
    rounds = Rounds(DynamicSection(**{"max_rounds": 10, **settings}), sizes(prompts, ranks), ranks)
    stub = Stub(verdicts, ranks)
    batch, _ = rounds.fill(stub)
    return rounds, stub, [one.prompt["prompt"] for one in batch]


def test_rounds_go_on_until_the_batch_is_full_of_informative_groups() -> None:
    rounds, stub, names = filled([SOLVED, MIXED, NEVER, NEVER, MIXED, MIXED], prompts=2)
    assert names == ["1", "4"]
    assert stub.rounds == 3
    assert rounds.metrics["dynamic/rounds"] == 3
    assert rounds.metrics["dynamic/solved"] == pytest.approx(1 / 6)
    assert rounds.metrics["dynamic/unsolvable"] == pytest.approx(2 / 6)
    assert rounds.metrics["dynamic/surplus"] == 1


def test_an_exactly_full_batch_starts_no_other_round() -> None:
    _, stub, names = filled([MIXED, MIXED, SOLVED, SOLVED], prompts=2)
    assert (names, stub.rounds) == (["0", "1"], 1)


def test_a_round_may_be_larger_than_a_batch_as_in_the_paper() -> None:
    rounds = Rounds(DynamicSection(10, prompts=6), sizes(2), Ranks())
    stub = Stub([SOLVED, NEVER, MIXED, SOLVED, MIXED, MIXED], Ranks())
    batch, _ = rounds.fill(stub)
    assert ([one.prompt["prompt"] for one in batch], stub.rounds) == (["2", "4"], 1)
    assert rounds.metrics["dynamic/surplus"] == 1


def test_the_tokens_of_a_batch_are_counted_against_all_that_were_sampled() -> None:
    rounds, _, _ = filled([SOLVED, MIXED, NEVER, MIXED], prompts=2)
    tokens = [sum(1 + (prompt + row) % 3 for row in range(G)) for prompt in range(4)]
    assert rounds.metrics["dynamic/tokens_per_kept"] == pytest.approx(sum(tokens) / (tokens[1] + tokens[3]))


def test_the_limit_ends_in_one_line_that_says_why() -> None:
    with pytest.raises(UserError, match=r"after 2 rounds of 2 prompts, 1 of 2 groups .* \(50% .* solved, 25% never\)"):
        filled([SOLVED, MIXED, NEVER, SOLVED, MIXED], prompts=2, max_rounds=2)


def test_a_short_batch_can_be_filled_with_groups_without_gradient() -> None:
    rounds, _, names = filled([SOLVED, MIXED, NEVER, SOLVED], prompts=2, max_rounds=2, short="fill")
    assert names == ["0", "1"]
    assert rounds.metrics["dynamic/missing"] == 1


@pytest.mark.parametrize("short", ["fill", "error"])
def test_rounds_that_cannot_fill_a_batch_are_refused_before_anything_is_sampled(short: str) -> None:
    with pytest.raises(
        UserError, match=r"max_rounds is 1, and a round asks 2 prompts, but .* has 4; .* least 2 rounds"
    ):
        Rounds(DynamicSection(1, prompts=2, short=short), sizes(4), Ranks())
    with pytest.raises(
        UserError, match="a round asks 8 prompts, but a rollout batch has 20; expected at least 3 rounds"
    ):
        RolloutsSection(prompts=20, dynamic=DynamicSection(2, prompts=8, short=short))
    Rounds(DynamicSection(2, prompts=2, short=short), sizes(4), Ranks())
    RolloutsSection(prompts=20, dynamic=DynamicSection(0, prompts=8))  # off


def test_surplus_is_dropped_or_comes_first_in_the_next_batch() -> None:
    verdicts = [MIXED, MIXED, MIXED, NEVER, MIXED, MIXED, MIXED, MIXED]
    for surplus, expected in (("drop", ["4", "5"]), ("carry", ["2", "4"])):
        rounds = Rounds(DynamicSection(10, prompts=4, surplus=surplus), sizes(2), Ranks())
        stub = Stub(verdicts, Ranks())
        first, left = rounds.fill(stub)
        assert [one.prompt["prompt"] for one in first] == ["0", "1"]
        assert (left and [one.prompt["prompt"] for one in left]) == (["2"] if surplus == "carry" else None)
        second, _ = rounds.fill(stub)
        assert [one.prompt["prompt"] for one in second] == expected


def test_carried_groups_survive_a_checkpoint() -> None:
    rounds = Rounds(DynamicSection(10, prompts=4, surplus="carry"), sizes(2), Ranks())
    rounds.fill(Stub([MIXED] * 8, Ranks()))
    again = Rounds(rounds.settings, sizes(2), Ranks())
    again.load_state_dict(rounds.state_dict())
    assert again.waiting == rounds.waiting
    assert list(again.waiting) == [2, 3]
    assert [one.number for one in again.carried] == [one.number for one in rounds.carried] == [2, 3]
    assert again.sampled == 4


UNEVEN = [MIXED, MIXED, NEVER, SOLVED, MIXED, NEVER, SOLVED, MIXED, NEVER, MIXED, MIXED, MIXED]
"""Of the first round of four prompts, the first rank gets two informative groups and the second none."""


def on_a_rank(_: int) -> tuple[list[str], list[list[int]], int, dict[str, float]]:
    ranks = Ranks.current()
    rounds = Rounds(DynamicSection(10), sizes(4, ranks), ranks)
    stub = Stub(UNEVEN, ranks)
    batch, _ = rounds.fill(stub)
    rows = [ids.tolist() for one in batch for ids in one.completion_ids]
    return [one.prompt["prompt"] for one in batch], rows, stub.rounds, rounds.metrics


def test_two_ranks_with_uneven_luck_train_on_what_one_process_would() -> None:
    rounds, stub, names = filled(UNEVEN, prompts=4)
    first, second = run_ranks(2, on_a_rank)
    assert names == ["0", "1", "4", "7"]
    assert sorted(first[0] + second[0]) == names
    assert len(first[0]) == len(second[0]) == 2
    assert first[2] == second[2] == stub.rounds == 2
    assert first[3] == second[3] == rounds.metrics
    halves = [part[start : start + G] for part in (first[1], second[1]) for start in (0, G)]
    rows = dict(zip(first[0] + second[0], halves, strict=True))
    assert rows["0"] == [[row] * (1 + row % 3) for row in range(G)]  # whole and in order
    assert rows["7"] == [[700 + row] * (1 + (7 + row) % 3) for row in range(G)]


def test_rows_come_apart_and_together_again_without_a_change() -> None:
    groups = [group(3, MIXED), group(5, NEVER)]
    groups[0].truncated[1] = True
    sampled, rewards = assemble(groups, G, pad=9, functions=2, device=torch.device("cpu"))
    assert sampled.tokens.completion_ids.shape == (2 * G, 3)
    assert sampled.tokens.completion_ids[0].tolist() == [300, 9, 9]
    assert sampled.tokens.completion_mask.sum(dim=1).tolist() == [1, 2, 3, 1, 3, 1, 2, 3]
    assert sampled.tokens.prompt_mask.sum(dim=1).tolist() == [2] * (2 * G)
    prompts = [{"prompt": name} for name in ("3", "5") for _ in range(G)]
    texts = [text for one in groups for text in one.completions]
    again = split(sampled, rewards, prompts, texts, [None] * (2 * G), first=11)
    assert [one.number for one in again] == [11, 12]
    for before, after in zip(groups, again, strict=True):
        assert [ids.tolist() for ids in before.completion_ids] == [ids.tolist() for ids in after.completion_ids]
        assert before.prompt_ids.tolist() == after.prompt_ids.tolist()
        assert torch.equal(before.rewards, after.rewards)
        assert torch.equal(before.truncated, after.truncated)
        assert (before.prompt, before.completions) == (after.prompt, after.completions)


def test_a_rank_without_a_group_still_has_tensors() -> None:
    sampled, rewards = assemble([], G, pad=9, functions=2, device=torch.device("cpu"))
    assert sampled.tokens.completion_ids.shape[0] == 0
    assert rewards.shape == (0, 2)


def test_noted_scores_stand_where_their_rows_stand() -> None:
    old, new = group(3, MIXED), group(4, MIXED)
    shape = (G, 3)
    noted = Scores(torch.arange(12.0).view(shape), torch.ones(shape), None, torch.ones(G, dtype=torch.bool))
    keep_scores([old], noted)
    fresh = Scores(torch.full((2 * G, 3), -7.0), torch.zeros((2 * G, 3)), None, torch.tensor([False] * G + [True] * G))
    scores = use_kept_scores([old, new], fresh)
    assert scores.logps[1, :2].tolist() == [3.0, 4.0]  # row 1 has two tokens
    assert scores.logps[G:].eq(-7.0).all()
    assert scores.scored.all()
    assert use_kept_scores([new], fresh) is fresh
