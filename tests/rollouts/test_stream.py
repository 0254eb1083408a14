"""The prompt stream: permutations drawn from (seed, epoch), without duplicates, that go on where they stopped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.errors import UserError
from rlvr.rollouts.stream import PromptStream, prompt_text


def rows(count: int) -> list[dict]:
    return [{"prompt": f"p{index}", "gold": str(index)} for index in range(count)]


def prompts(taken: list[dict]) -> list[str]:
    return [row["prompt"] for row in taken]


def test_every_epoch_is_another_permutation() -> None:
    stream = PromptStream(rows(20), seed=0)
    epochs = [prompts(stream.take(20)) for _ in range(3)]
    assert all(sorted(epoch) == sorted(prompts(rows(20))) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [prompts(rows(20)), *epochs]}) == 4


def test_the_seed_decides_the_order() -> None:
    first, again, other = (prompts(PromptStream(rows(20), seed).take(40)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_take_runs_over_the_end_of_an_epoch() -> None:
    stream = PromptStream(rows(5), seed=0)
    taken = prompts(stream.take(13))
    assert sorted(taken[:5]) == sorted(taken[5:10]) == sorted(prompts(rows(5)))
    assert len(set(taken[10:])) == 3
    assert stream.epoch == pytest.approx(13 / 5)


@given(st.integers(1, 7), st.lists(st.integers(0, 9), max_size=8), st.integers(0, 3))
def test_the_order_does_not_depend_on_how_it_is_taken(count: int, takes: list[int], seed: int) -> None:
    in_pieces, at_once = PromptStream(rows(count), seed), PromptStream(rows(count), seed)
    pieces = [row for take in takes for row in in_pieces.take(take)]
    assert pieces == at_once.take(sum(takes))


@given(st.integers(1, 7), st.integers(0, 30), st.integers(1, 9))
def test_a_saved_stream_goes_on_where_it_stopped(count: int, before: int, after: int) -> None:
    stream = PromptStream(rows(count), seed=5)
    stream.take(before)
    resumed = PromptStream(rows(count), seed=5)
    resumed.load_state_dict(stream.state_dict())
    assert resumed.take(after) == stream.take(after)
    assert resumed.epoch == stream.epoch


def test_exact_duplicates_are_dropped_and_counted_and_the_first_row_stays() -> None:
    given_rows = [*rows(3), {"prompt": "p1", "gold": "other"}, {"prompt": "p0", "gold": "0"}]
    stream = PromptStream(given_rows, seed=0)
    assert stream.rows == rows(3)
    assert stream.duplicates == 2


def test_chats_are_compared_by_their_content() -> None:
    chat = [{"role": "user", "content": "1+1"}]
    reordered = [{"content": "1+1", "role": "user"}]
    assert prompt_text(chat) == prompt_text(reordered)
    assert PromptStream([{"prompt": chat}, {"prompt": reordered}], seed=0).duplicates == 1


@pytest.mark.parametrize(("count", "seed", "named"), [(6, 1, "seed=1, this run seed=2"), (5, 2, "prompts=5")])
def test_a_state_of_other_data_or_another_seed_is_refused(count: int, seed: int, named: str) -> None:
    saved = PromptStream(rows(count), seed).state_dict()
    with pytest.raises(UserError, match=named):
        PromptStream(rows(6), seed=2).load_state_dict(saved)


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(UserError, match="holds no prompt"):
        PromptStream([], seed=0)
