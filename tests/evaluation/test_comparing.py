"""`rlvr compare`: pairs by problem, the common problems only, corrections, and sentences."""

import csv
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rlvr.errors import UserError
from rlvr.evaluation.comparing import compare
from rlvr.evaluation.comparison_table import comparison_sheet, sentences, show_comparison
from rlvr.evaluation.paired import compare_many, holm, paired_difference
from rlvr.evaluation.scores import Scores
from rlvr.evaluation.selection_bias import honest_best
from tests.evaluation.made_scores import made, run_of, written

GOOD, BAD = [[1, 1]] * 12, [[0, 0]] * 12


def half(**more: object) -> Scores:
    return made([[1, 0]] * 12, **more)  # type: ignore[arg-type]


def test_a_pair_on_paper() -> None:
    # 12 differences of +1/2: all 2^12 sign patterns, two of which are as far: p = 2/4096.
    found = compare([half(), made(GOOD, checkpoint="b")], "builtin", ["b"])
    (row,) = found.differences
    assert (row.a, row.b, row.paired.difference, row.paired.problems) == (0.5, 1.0, 0.5, 12)
    assert row.paired.p_value == row.adjusted == pytest.approx(2 / 4096)
    assert row.paired == paired_difference(np.full(12, 0.5), np.ones(12), denominators=2)
    (said,) = sentences(found)
    low, high = 100 * row.paired.low, 100 * row.paired.high
    assert said == f"b is better than builtin by 50.0 points ({low:.1f} to {high:.1f}), p < 0.001 on sums."


def test_the_other_way_round_it_is_worse_with_the_limits_exchanged() -> None:
    scores = [half(), made(GOOD, checkpoint="b")]
    (one,), (other,) = (compare(scores, *pair).differences for pair in (("builtin", ["b"]), ("b", ["builtin"])))
    assert (other.paired.low, other.paired.high) == (-one.paired.high, -one.paired.low)
    (said,) = sentences(compare(scores, "b", ["builtin"]))
    low, high = 100 * one.paired.low, 100 * one.paired.high
    assert said.startswith(f"builtin is worse than b by 50.0 points ({low:.1f} to {high:.1f})")


def test_no_difference_is_not_called_one() -> None:
    found = compare([half(), made([[1, 0]] * 11 + [[1, 1]], checkpoint="b")], "builtin", ["b"])
    assert found.differences[0].paired.p_value == 1.0
    assert not found.differences[0].shown
    assert sentences(found)[0].startswith("No difference shown between b and builtin on sums: +4.2 points (-")


def test_only_common_problems_count_in_pairs() -> None:
    # Of A p00..p11, of B p06..p17: six in common, where A has 0 and B has 1.
    a, b = made([[1, 1]] * 6 + [[0, 0]] * 6, total=40), made(GOOD, checkpoint="b", first=6, total=40)
    found = compare([a, b], "builtin", ["b"])
    assert (found.differences[0].paired.problems, found.differences[0].paired.difference) == (6, 1.0)
    assert found.notes == ["sums: the 6 of 40 problems that all were asked (builtin 12, b 12)."]
    with pytest.raises(UserError, match="none in common"):
        compare([a, made(GOOD, checkpoint="b", first=12)], "builtin", ["b"])


def test_a_part_that_all_share_is_said() -> None:
    found = compare([half(total=500), made(GOOD, checkpoint="b", total=500)], "builtin", ["b"])
    assert found.notes == ["sums: the 12 of 500 problems that all were asked."]


def test_different_numbers_of_samples_are_exact_all_the_same() -> None:
    a, b = made([[1, 0, 0]] * 12), made([[1, 1, 0, 0]] * 12, checkpoint="b")
    (row,) = compare([a, b], "builtin", ["b"]).differences
    assert row.paired.difference == pytest.approx(1 / 6)
    assert row.paired.p_value == pytest.approx(2 / 4096)
    assert row.paired.method == "sign flips, exact"


def test_seeds_are_put_together_or_chosen() -> None:
    scores = [half(), half(seed=1), made(GOOD, checkpoint="b", seed=1), made(BAD, checkpoint="b", seed=2)]
    found = compare(scores, "builtin", ["b"])
    assert found.differences[0].b == 0.5
    assert found.notes == [
        "sums: sampled with different seeds (builtin 0 and 1, b 1 and 2); paired by problem all the same."
    ]
    chosen = compare(scores, "builtin", ["b"], seed=1)
    assert (chosen.differences[0].b, chosen.notes) == (1.0, [])
    with pytest.raises(UserError, match="seed 7 is not in the ledger; it has 0, 1, 2"):
        compare(scores, "builtin", ["b"], seed=7)


def test_several_benchmarks_are_corrected_and_put_together() -> None:
    small = [[1, 0]] * 2 + [[0, 0]] * 8
    scores = [
        half(), made(GOOD, checkpoint="b"),
        made([[0, 0]] * 10, benchmark="hard"), made(small, benchmark="hard", checkpoint="b"),
        made(GOOD, benchmark="alone"),
    ]  # fmt: skip
    found = compare(scores, "builtin", ["b"])
    easy, hard, together = found.differences
    assert [easy.adjusted, hard.adjusted] == holm([2 / 4096, 0.5])
    strata = np.repeat([0, 1], [12, 10])
    a, b = np.repeat([0.5, 0.0], [12, 10]), np.concatenate([np.ones(12), [0.5] * 2, np.zeros(8)])
    assert together.paired == paired_difference(a, b, strata=strata, denominators=2)
    assert (together.benchmark, together.adjusted) == ("all 2", None)
    assert found.notes == ["alone is left out: b was not asked it."]
    assert "over 2 benchmarks" in sentences(found)[0]
    table = comparison_sheet(found)
    assert table.columns[-1] == "p, corrected"
    assert table.rows[-1][-1] == "\N{EN DASH}"
    with pytest.raises(UserError, match="no benchmark in common"):
        compare([half(), made(GOOD, checkpoint="b", benchmark="hard")], "builtin", ["b"])


def test_many_against_one_hold_at_once_and_the_best_is_honest() -> None:
    scores = [half(), *run_of([5, 8, 11])]
    found = compare(scores, "builtin", ["runs/x"])
    assert found.others == ["x/checkpoint-10", "x/checkpoint-20", "x/checkpoint-30"]
    values = np.stack([one.means() for one in scores])
    assert [row.paired for row in found.differences] == compare_many(values[0], values[1:])
    assert found.best == honest_best(values[1:], strata=np.zeros(12))
    assert len(sentences(found)) == 4
    assert sentences(found)[-1].startswith("Highest of the 3 is x/checkpoint-30 with 91.7 %.")
    single = compare(scores, "builtin", ["x/checkpoint-30"]).differences[0].paired
    wide = found.differences[2].paired
    assert wide.low < single.low < single.high < wide.high, "intervals that hold at once are wider"


def test_many_on_several_benchmarks_are_corrected_for_both() -> None:
    scores = [half(), half(benchmark="hard"), *run_of([5, 11]), *run_of([6, 7], benchmark="hard")]
    found = compare(scores, "builtin", ["runs/x"])
    assert [(row.benchmark, row.name[-2:]) for row in found.differences] == [
        ("sums", "10"), ("sums", "20"), ("hard", "10"), ("hard", "20"), ("all 2", "10"), ("all 2", "20"),
    ]  # fmt: skip
    assert all(row.adjusted == min(1, 2 * row.paired.p_value) for row in found.differences[:4])
    assert found.verdicts == found.differences[4:]


def test_a_pattern_leaves_a_out_but_a_with_itself_is_refused() -> None:
    scores = run_of([5, 8, 11])
    assert compare(scores, "checkpoint-10", ["runs/x"]).others == ["x/checkpoint-20", "x/checkpoint-30"]
    with pytest.raises(UserError, match="same weights as checkpoint-10"):
        compare(scores, "checkpoint-10", ["runs/x/checkpoints/checkpoint-10"])
    with pytest.raises(UserError, match="stands for 3 checkpoints"):
        compare(scores, "runs/x", ["checkpoint-10"])
    with pytest.raises(UserError, match="is no checkpoint of the ledger"):
        compare(scores, "checkpoint-10", ["nothing"])


def test_protocols_are_never_mixed_by_chance() -> None:
    hot, cold = half(), made(GOOD, checkpoint="b", temperature=0.6, name="cold")
    with pytest.raises(UserError, match=r"sums was asked under two protocols.*sampling.temperature 1.0 against 0.6"):
        compare([hot, cold], "builtin", ["b"])
    found = compare([hot, cold], "builtin", ["b"], mixed=True)
    assert found.notes == ["sums: different protocols, compared on purpose (`--mixed`)."]
    # A protocol that both have is the one that counts, whatever else is there.
    both = [hot, cold, made(BAD, temperature=0.6, name="cold")]
    assert compare(both, "builtin", ["b"]).differences[0].paired.difference == 1.0
    # Two that both have: one must be chosen, and mixing does not choose.
    two = [*both, half(checkpoint="b")]
    for mixed in (False, True):
        with pytest.raises(UserError, match="--protocol HASH"):
            compare(two, "builtin", ["b"], mixed=mixed)
    # Each pair has a protocol in common, all three have none.
    three = [hot, made(BAD, temperature=0.6), cold, half(checkpoint="c")]
    with pytest.raises(UserError, match="no protocol of sums was used for all"):
        compare(three, "builtin", ["b", "c"])


def shown(ledger: Path, *names: str, **options: object) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        show_comparison(ledger, names[0], names[1:], console, **options)  # type: ignore[arg-type]
    return capture.get()


def test_a_comparison_of_a_ledger_on_the_disk(tmp_path: Path) -> None:
    ledger = written(tmp_path / "led", [half(), made(GOOD, checkpoint="b"), made(BAD, temperature=0.6, name="cold")])
    text = shown(ledger, "builtin", "b", output=tmp_path / "c.csv")
    assert "b is better than builtin by 50.0 points" in text
    with (tmp_path / "c.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["a"], row["b"], float(row["difference"]), float(row["p"])) == ("builtin", "b", 0.5, 0.000488)
    shown(ledger, "builtin", "b", output=tmp_path / "c.md")
    assert "| b | sums | 12 | 50.0 % | 100.0 % | +50.0 (" in (tmp_path / "c.md").read_text()
    with pytest.raises(UserError, match=r"ends in .html; expected .csv or .md"):
        shown(ledger, "builtin", "b", output=tmp_path / "c.html")
    with pytest.raises(UserError, match="b has no scores under protocol cold"):
        shown(ledger, "builtin", "b", protocol="cold")
