"""Tables of a token and a group: against scipy on every table up to 16 rollouts, and by hand."""

import math

import pytest
from scipy.stats import fisher_exact, hypergeom

from rlvr.maths.fisher import arcsine_differences, fisher_p_values, information_gains

LARGEST = 16
MARGINS = [(correct, total - correct) for total in range(LARGEST + 1) for correct in range(total + 1)]


def test_a_table_by_hand() -> None:
    """4 right, 4 wrong, 4 of 8 have it: C(4,a) C(4,4-a) = 1, 16, 36, 16, 1 of C(8,4) = 70."""
    two_sided, point = fisher_p_values(4, 4), fisher_p_values(4, 4, "point")
    assert [two_sided[a][4 - a] for a in range(5)] == [2 / 70, 34 / 70, 1.0, 34 / 70, 2 / 70]
    assert [point[a][4 - a] for a in range(5)] == [1 / 70, 16 / 70, 36 / 70, 16 / 70, 1 / 70]


@pytest.mark.parametrize(
    ("a", "b", "two_sided", "point", "gain", "h"),
    [
        (4, 4, 1.0, 1.0, 0.0, 0.0),
        (3, 1, 0.4857, 0.2286, 0.1887, 0.5236),
        (3, 4, 1.0, 0.5, 0.1379, -0.5236),
        (0, 2, 0.4286, 0.2143, 0.3113, -0.7854),
    ],
)
def test_the_worked_tables(a: int, b: int, two_sided: float, point: float, gain: float, h: float) -> None:
    """Four right and four wrong rollouts; 3/14 for the last point probability: C(4,0) C(4,2) / C(8,2) = 6/28."""
    assert fisher_p_values(4, 4)[a][b] == pytest.approx(two_sided, abs=5e-5)
    assert fisher_p_values(4, 4, "point")[a][b] == pytest.approx(point, abs=5e-5)
    assert information_gains(4, 4)[a][b] == pytest.approx(gain, abs=5e-5)
    assert arcsine_differences(4, 4)[a][b] == pytest.approx(h, abs=5e-5)


def test_scipy_agrees_on_every_table() -> None:
    tables = 0
    for correct, wrong in MARGINS[1:]:
        two_sided, point = fisher_p_values(correct, wrong), fisher_p_values(correct, wrong, "point")
        for a in range(correct + 1):
            for b in range(wrong + 1):
                tables += 1
                expected = fisher_exact([[a, b], [correct - a, wrong - b]]).pvalue
                assert two_sided[a][b] == pytest.approx(expected, rel=1e-9), (a, b, correct, wrong)
                exactly = hypergeom.pmf(a, correct + wrong, correct, a + b)
                assert point[a][b] == pytest.approx(exactly, rel=1e-9), (a, b, correct, wrong)
    assert tables == math.comb(LARGEST + 4, 4) - 1  # ways to write 1 to 16 as a + b + c + d


def test_what_is_certain_is_exactly_one() -> None:
    """The likeliest table of its margins has p = 1, to the last bit: every arrangement counts."""
    for correct, wrong in MARGINS:
        p_values = fisher_p_values(correct, wrong)
        for seen in range(correct + wrong + 1):
            cells = range(max(0, seen - wrong), min(correct, seen) + 1)
            weights = {a: math.comb(correct, a) * math.comb(wrong, seen - a) for a in cells}
            for a in cells:
                assert (p_values[a][seen - a] == 1.0) == (weights[a] == max(weights.values()))


def bits(*counts: int) -> float:
    return -sum(n / sum(counts) * math.log2(n / sum(counts)) for n in counts if n)


def test_information_gain_is_mutual_information() -> None:
    """The other formula: h(present) + h(correct) - h(both)."""
    for correct, wrong in MARGINS[1:]:
        for a in range(correct + 1):
            for b in range(wrong + 1):
                c, d = correct - a, wrong - b
                gain = information_gains(correct, wrong)[a][b]
                assert gain == pytest.approx(bits(a + b, c + d) + bits(correct, wrong) - bits(a, b, c, d), abs=1e-12)
                assert (gain > 0) == (a * d != b * c)  # 0 exactly if independent


def test_swapping_right_and_wrong_changes_signs_only() -> None:
    for correct, wrong in MARGINS:
        for test in ("two_sided", "point"):
            assert fisher_p_values(correct, wrong, test) == tuple(
                zip(*fisher_p_values(wrong, correct, test), strict=True)
            )
        assert information_gains(correct, wrong) == tuple(zip(*information_gains(wrong, correct), strict=True))
        swapped = tuple(zip(*arcsine_differences(wrong, correct), strict=True))
        assert arcsine_differences(correct, wrong) == tuple(tuple(-h for h in row) for row in swapped)


def test_large_groups_stay_exact() -> None:
    assert fisher_p_values(128, 128)[64][64] == 1.0
    assert fisher_p_values(128, 128)[128][0] == 2 / math.comb(256, 128)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="fisher is 'one_sided'; expected one of two_sided, point"):
        fisher_p_values(4, 4, "one_sided")
    with pytest.raises(ValueError, match="-1 correct and 4 wrong rollouts; expected numbers of rollouts"):
        fisher_p_values(-1, 4)
