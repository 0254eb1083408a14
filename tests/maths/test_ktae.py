"""Key-token values: the worked example, a loop over tokens with scipy, and what must not matter."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import fisher_exact, hypergeom
from torch import Tensor

import rlvr.maths.ktae as module
from rlvr.maths.ktae import key_token_values

NAN = math.nan
IDS = torch.tensor(
    [[1, 2, 2, 3], [1, 2, 3, 3], [1, 2, 2, 2], [1, 3, 3, 3], [1, 2, 3, 3], [1, 3, 3, 3], [1, 3, 3, 4], [1, 3, 4, 4]]
)
MASK = torch.ones_like(IDS, dtype=torch.bool)
REWARDS = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])


def of_token(values: Tensor, ids: Tensor = IDS) -> list[float]:
    """The value of tokens 1 to 4, the same wherever a token stands."""
    found = [values[ids == token] for token in (1, 2, 3, 4)]
    assert all((each == each[0]).all() for each in found)
    return [float(each[0]) for each in found]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({}, [0, 0.6561, -0.0345, -1.0]),
        ({"beta": 2.0}, [0, 0.6032, -0.0460, -1.0]),
        ({"fisher": "point"}, [0, 0.8139, -0.1259, -1.0]),
        ({"scale": "paper"}, [0, 0.4587, -0.0345, -0.5]),
        ({"top": 0.5}, [0, 0.32805, -0.01725, -0.5]),
        # (F + IG) h / 2 for token 2: (.3785 + .1887) * .5236 / 2 = .1485, and tanh(.1485 / 2) = .0741
        ({"gamma": 0.0}, [0, 0.0741, -0.0361 / 2, -0.1435]),
        ({"one_sided": "presence"}, [0, 0.6561, -0.0345, -0.1435]),
        ({"one_sided": "zero"}, [0, 0.6561, -0.0345, 0.0]),
    ],
)
def test_the_worked_example(numbers: dict[str, Any], expected: list[float]) -> None:
    values = key_token_values(IDS, MASK, REWARDS, 8, **numbers)
    assert values.dtype == torch.float32
    assert of_token(values) == pytest.approx(expected, abs=6e-5)


def test_a_token_seen_once_is_as_strong_as_published() -> None:
    """8 right, 8 wrong, 600 tokens each; one token once in one right rollout: p = 1, F = 0, IG = .0655, tf = 31.25."""
    ids = torch.zeros(16, 600, dtype=torch.int64)
    ids[0, 7] = 5
    values = key_token_values(
        ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor([1.0, 0.0]).repeat_interleave(8), 16
    )
    assert float(values[0, 7]) == pytest.approx(0.476, abs=5e-4)
    assert float(values.count_nonzero()) == 1


def bits(*counts: int) -> float:
    return -sum(n / sum(counts) * math.log2(n / sum(counts)) for n in counts if n)


def loop_value(right: list[list[int]], wrong: list[list[int]], token: int, **numbers: Any) -> float:
    """One token's value from two lists of rollouts, as the paper and its code define it."""
    chosen = {
        "scale": "code",
        "fisher": "two_sided",
        "alpha": 1,
        "beta": 1,
        "gamma": 1,
        "top": 1,
        "eps": 1e-5,
    } | numbers
    a, b = sum(token in row for row in right), sum(token in row for row in wrong)
    c, d, n = len(right) - a, len(wrong) - b, len(right) + len(wrong)
    p = fisher_exact([[a, b], [c, d]]).pvalue
    if chosen["fisher"] == "point":
        p = hypergeom.pmf(a, n, len(right), a + b)
    strength = 0.0 if abs(p - 1) < 1e-9 else math.exp(-2 * p)
    gain = bits(len(right), len(wrong)) - (a + b) / n * bits(a, b) - ((c + d) / n * bits(c, d) if c + d else 0)
    direction = math.asin(math.sqrt(a / len(right))) - math.asin(math.sqrt(b / len(wrong)))
    long_right, long_wrong = sum(map(len, right)), sum(map(len, wrong))
    often = []
    for rows, length in ((right, long_right), (wrong, long_wrong)):
        share = sum(row.count(token) for row in rows) / max(1, length)
        often.append(3 * share / (share + 2 * (0.5 + 0.5 * length / ((long_right + long_wrong) / 2))))
    direction += chosen["gamma"] * (often[0] / (often[1] + chosen["eps"]) - often[1] / (often[0] + chosen["eps"]))
    raw = (chosen["alpha"] * strength + chosen["beta"] * gain) * direction
    if chosen["scale"] == "code":
        return chosen["top"] * math.tanh(raw / (chosen["alpha"] + chosen["beta"]) / 2)
    return chosen["top"] * math.tanh(raw / 2) / 2


def loop_values(ids: Tensor, mask: Tensor, rewards: Tensor, group_size: int, **numbers: Any) -> Tensor:
    """The oracle: group by group, token by token."""
    values = torch.zeros(ids.shape)
    for start in range(0, len(ids), group_size):
        members = [i for i in range(start, start + group_size) if math.isfinite(rewards[i])]
        rows = {i: ids[i][mask[i]].tolist() for i in members}
        right, wrong = [rows[i] for i in members if rewards[i] > 0], [rows[i] for i in members if rewards[i] <= 0]
        if not right or not wrong:
            continue
        known = {token: loop_value(right, wrong, token, **numbers) for row in rows.values() for token in row}
        for i in members:
            values[i][mask[i]] = torch.tensor([known[token] for token in rows[i]])
    return values


def batch(seed: int, groups: int = 5, size: int = 6, length: int = 9, words: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Groups of every kind: mixed, solved, unsolved, with unscorable and with empty rows."""
    generator = torch.Generator().manual_seed(seed)
    rows = groups * size
    ids = (torch.rand(rows, length, generator=generator) ** 2 * words).long()
    lengths = torch.randint(0, length + 1, (rows,), generator=generator)
    rewards = torch.randint(0, 2, (rows,), generator=generator).float() * 2 - 1
    rewards[:size], rewards[size : 2 * size] = 1.0, 0.0
    rewards[2 * size], rewards[-1] = NAN, math.inf
    return ids, torch.arange(length) < lengths[:, None], rewards


NUMBERS = [
    {},
    {"scale": "paper", "fisher": "point"},
    {"alpha": 0.5, "beta": 2.0, "gamma": 0.3, "top": 0.7},
    {"alpha": 0.0},
    {"beta": 0.0, "gamma": 0.0},
]


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize("size", [2, 3, 6, 16])
def test_the_whole_batch_at_once_equals_a_loop_over_tokens(size: int, numbers: dict[str, Any]) -> None:
    differing = 0
    for seed in range(3):
        ids, mask, rewards = batch(seed, groups=8, size=size)
        expected = loop_values(ids, mask, rewards, size, **numbers)
        differing += len(expected.unique())
        torch.testing.assert_close(
            key_token_values(ids, mask, rewards, size, **numbers), expected, atol=1e-6, rtol=1e-5
        )
    assert differing >= (3 if size == 2 else 9)  # a group of two knows p = 1 only


def test_the_order_of_rows_and_groups_and_the_padding_do_not_matter() -> None:
    ids, mask, rewards = batch(0)
    values = key_token_values(ids, mask, rewards, 6)
    generator = torch.Generator().manual_seed(1)
    groups = torch.randperm(5, generator=generator)
    rows = torch.cat([6 * group + torch.randperm(6, generator=generator) for group in groups])
    assert torch.equal(key_token_values(ids[rows], mask[rows], rewards[rows], 6), values[rows])
    columns = torch.randperm(ids.shape[1], generator=generator)
    assert torch.equal(key_token_values(ids[:, columns], mask[:, columns], rewards, 6), values[:, columns])
    wide, inside = torch.nn.functional.pad(ids, (0, 4), value=-100), torch.nn.functional.pad(mask, (0, 4))
    assert torch.equal(key_token_values(wide.where(inside, -100), inside, rewards, 6)[:, :9], values)
    assert torch.equal(values[~mask], torch.zeros(int((~mask).sum())))


def test_groups_are_worked_on_in_any_number_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask, rewards = batch(2, groups=9)
    values = key_token_values(ids, mask, rewards, 6)
    for tokens in (1, 6 * 9 * 2, 10**9):
        monkeypatch.setattr(module, "chunk_size", lambda device, tokens=tokens: tokens)
        assert torch.equal(key_token_values(ids, mask, rewards, 6), values)


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_swapping_all_labels_negates_every_value_exactly(numbers: dict[str, Any]) -> None:
    for seed in range(5):
        ids, mask, rewards = batch(seed, size=7)
        values = key_token_values(ids, mask, rewards, 7, **numbers)
        assert torch.equal(key_token_values(ids, mask, -rewards, 7, **numbers), -values)


def test_a_token_of_every_rollout_is_worth_nothing_however_often_it_comes() -> None:
    ids, mask, rewards = batch(3)
    ids[:, 0], mask[:, 0] = 99, True
    ids[rewards > 0, 1], mask[:, 1] = 99, True  # twice in the right ones
    values = key_token_values(ids, mask, rewards, 6)
    assert (values[ids == 99] == 0).all()
    assert values.count_nonzero() > 20


def test_groups_of_one_kind_have_no_values() -> None:
    ids, mask, rewards = batch(4)
    values = key_token_values(ids, mask, rewards, 6)
    assert not values[:12].any()
    assert values[12:].any()
    assert not key_token_values(IDS, MASK, REWARDS, 1).any()


def test_an_unscorable_row_is_as_if_it_were_not_there() -> None:
    rewards = REWARDS.clone()
    rewards[[2, 6]] = torch.tensor([NAN, math.inf])
    left = [0, 1, 3, 4, 5, 7]
    values = key_token_values(IDS, MASK, rewards, 8)
    assert not values[[2, 6]].any()
    assert torch.equal(values[left], key_token_values(IDS[left], MASK[left], REWARDS[left], 6))


def test_excluded_ids_have_no_value_but_count_in_the_lengths() -> None:
    values = key_token_values(IDS, MASK, REWARDS, 8)
    without = key_token_values(IDS, MASK, REWARDS, 8, excluded_ids=[4, 2, 151643])
    assert torch.equal(without, values.where((IDS != 4) & (IDS != 2), 0.0))


@pytest.mark.parametrize("offset", [10**6, 2**28, 2**40])
def test_only_equality_of_ids_counts(offset: int) -> None:
    """Beyond 2**31 / G the keys are wider."""
    values = key_token_values(IDS, MASK, REWARDS, 8)
    assert torch.equal(key_token_values(IDS * 7 + offset, MASK, REWARDS, 8), values)
    assert torch.equal(key_token_values(IDS.int(), MASK, REWARDS.to(torch.bfloat16), 8), values)


def test_batches_without_tokens_or_rows() -> None:
    nothing = torch.zeros(8, 0, dtype=torch.int64)
    assert key_token_values(nothing, nothing.bool(), REWARDS, 8).shape == (8, 0)
    assert key_token_values(nothing[:0], nothing[:0].bool(), REWARDS[:0], 8).shape == (0, 0)
    assert torch.equal(key_token_values(IDS, ~MASK, REWARDS, 8), torch.zeros(8, 4))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"scale": "verl"}, "scale is 'verl'; expected one of code, paper"),
        ({"fisher": "one"}, "fisher is 'one'; expected one of two_sided, point"),
        ({"one_sided": "drop"}, "one_sided is 'drop'; expected one of ratio, presence, zero"),
        ({"beta": -1.0}, "beta is -1.0; expected 0 or a positive number"),
        ({"top": NAN}, "top is nan; expected"),
        ({"ratio_eps": 0.0}, "ratio_eps is 0.0; expected a small positive number"),
        ({"alpha": 0.0, "beta": 0.0}, "alpha and beta are both 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        key_token_values(IDS, MASK, REWARDS, 8, **numbers)


def test_tensors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="8 rewards do not divide into groups of 3"):
        key_token_values(IDS, MASK, REWARDS, 3)
    with pytest.raises(ValueError, match=r"\(8, 4\), \(8, 3\) and \(8,\); expected \(B, T\), \(B, T\) and \(B,\)"):
        key_token_values(IDS, MASK[:, 1:], REWARDS, 8)
    with pytest.raises(ValueError, match=r"mask is torch\.int64; expected integers and torch\.bool"):
        key_token_values(IDS, MASK.long(), REWARDS, 8)
    with pytest.raises(ValueError, match="negative id inside the mask"):
        key_token_values(IDS - 2, MASK, REWARDS, 8)
