"""avg@n, pass@k and maj@k of one problem: numbers on paper, and enumeration of every draw."""

import time
from collections import Counter
from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.evaluation.metrics import avg_at_n, maj_at_k, pass_at_k


def test_avg_at_n_is_the_share_of_right_samples() -> None:
    assert avg_at_n([True, False, False, True]) == 0.5
    with pytest.raises(ValueError, match="at least one sample"):
        avg_at_n([])


def test_pass_at_k_on_paper() -> None:
    # 4 samples, 1 right, draw 2: C(3,2) / C(4,2) = 3/6 hold no right one.
    assert pass_at_k(4, 1, 2) == 0.5
    # 5 samples, 2 right, draw 3: C(3,3) / C(5,3) = 1/10.
    assert pass_at_k(5, 2, 3) == 0.9
    assert pass_at_k(3, 2, 2) == 1.0  # only one wrong sample: two draws must hold a right one
    assert pass_at_k(7, 0, 7) == 0.0


def test_pass_at_1_is_avg_at_n_and_pass_at_n_asks_for_any() -> None:
    for n in range(1, 20):
        for c in range(n + 1):
            assert pass_at_k(n, c, 1) == c / n
            assert pass_at_k(n, c, n) == float(c > 0)


def test_pass_at_k_equals_every_draw() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations(range(n), k))
                hits = sum(min(draw) < c for draw in draws)
                assert pass_at_k(n, c, k) == hits / len(draws)


def test_pass_at_k_is_exact_for_many_samples() -> None:
    # A factor a draw: (1 - 1/n) (1 - 1/(n-1)) ... = (n - k) / n for one right sample.
    assert pass_at_k(100_000, 1, 1_000) == 0.01
    assert pass_at_k(10_000, 5_000, 5_000) == 1.0
    exact = 1 - Fraction(comb(997, 300), comb(1000, 300))
    assert pass_at_k(1000, 3, 300) == float(exact)


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 1, 5, "at most 4"),
        (4, 1, 0, "at least 1"),
        (4, 5, 1, "from 0 to 4"),
        (4, -1, 1, "from 0 to 4"),
        (0, 0, 1, "at most 0"),
    ],
)
def test_pass_at_k_refuses(n: int, c: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)


def enumerated(classes: list[str | None], right: set[str], k: int) -> float:
    """maj@k by looking at every draw."""
    total = Fraction(0)
    draws = list(combinations(classes, k))
    for draw in draws:
        votes = Counter(label for label in draw if label is not None)
        if votes:
            top = [label for label, count in votes.items() if count == max(votes.values())]
            total += Fraction(sum(label in right for label in top), len(top))
    return float(total / len(draws))


def test_maj_at_k_on_paper() -> None:
    # a a b, a right, draw 2: {a,a} wins; {a,b} twice, a tie: (1 + 2/2) / 3.
    assert maj_at_k(["a", "a", "b"], [True, True, False], 2) == pytest.approx(2 / 3)
    assert maj_at_k(["a", "a", "b"], [True, True, False], 3) == 1.0
    # One right answer and three without one, draw 2: right whenever it is drawn, 3 of 6 draws.
    assert maj_at_k(["a", None, None, None], [True, False, False, False], 2) == 0.5
    assert maj_at_k([None, None], [False, False], 2) == 0.0
    # Three singletons, all drawn: a tie of three.
    assert maj_at_k(["a", "b", "c"], [True, False, False], 3) == pytest.approx(1 / 3)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=9), st.sets(st.sampled_from("abcd")))
def test_maj_at_k_equals_every_draw(classes: list[str | None], right: set[str]) -> None:
    correct = [label in right for label in classes]
    for k in range(1, len(classes) + 1):
        assert maj_at_k(classes, correct, k) == pytest.approx(enumerated(classes, right, k), abs=1e-15)


def test_maj_at_1_is_avg_at_n_and_two_votes_add_nothing() -> None:
    classes = ["a", "b", "a", "c", "d", "a", "b"]
    correct = [label == "a" for label in classes]
    assert maj_at_k(classes, correct, 1) == pytest.approx(avg_at_n(correct))
    assert maj_at_k(classes, correct, 2) == pytest.approx(avg_at_n(correct))  # a disagreement is a tie of two


def test_maj_at_k_beyond_64_bits_agrees_with_a_closed_form() -> None:
    # 60 right, 40 wrong, draw 99 or 99 of 100: 59 or 60 against 40 or 39.
    classes = ["a"] * 60 + ["b"] * 40
    assert maj_at_k(classes, [label == "a" for label in classes], 99) == 1.0
    # One class against one, k odd: the hypergeometric tail.
    tail = sum(Fraction(comb(60, j) * comb(40, 41 - j), comb(100, 41)) for j in range(21, 42))
    assert maj_at_k(classes, [label == "a" for label in classes], 41) == pytest.approx(float(tail), rel=1e-14)


@pytest.mark.parametrize("k", [1, 16, 32, 64])
def test_64_singletons_are_fast_and_a_tie_of_all(k: int) -> None:
    classes = [str(i) for i in range(64)]
    correct = [i < 3 for i in range(64)]
    start = time.process_time()
    assert maj_at_k(classes, correct, k) == pytest.approx(3 / 64)
    assert time.process_time() - start < 0.1


def test_many_sizes_are_fast() -> None:
    # 1 + 2 + ... + 10 = 55 samples in ten classes, nine without an answer.
    classes: list[str | None] = [str(size) for size in range(1, 11) for _ in range(size)]
    classes += [None] * 9
    start = time.process_time()
    maj_at_k(classes, [label in {"10", "4", "7"} for label in classes], 48)
    assert time.process_time() - start < 0.1


def test_maj_at_k_refuses() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        maj_at_k(["a"], [True], 2)
    with pytest.raises(ValueError, match="at least 1"):
        maj_at_k(["a"], [True], 0)
    with pytest.raises(ValueError, match="'a' is both right and wrong"):
        maj_at_k(["a", "a"], [True, False], 1)
    with pytest.raises(ValueError, match="without an answer class is right"):
        maj_at_k([None, "a"], [True, False], 1)
    with pytest.raises(ValueError, match="2 classes but 1 verdicts"):
        maj_at_k(["a", "b"], [True], 1)
