"""Temperatures at forks and elsewhere: the rule by hand, plain sampling at one, greedy at zero, and the sweep."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlvr.analysis.scoring import open_policy
from rlvr.analysis.temperatures import (
    Asked,
    Sampler,
    SplitTemperature,
    arms_of,
    entropies_of,
    sweep_temperatures,
)
from rlvr.analysis.temperatures_commands import temperatures_in
from rlvr.cli import main
from rlvr.decoding.fork_temperature import ForkTemperature
from rlvr.errors import UserError
from rlvr.rewards.policy import DEFAULT
from rlvr.sampling.batched import BatchedSampler, Row
from rlvr.sampling.settings import Sampling
from tests.evaluation.tiny import make_model, make_tokenizer

LOGITS = torch.tensor([[0.0, 0.0, -9.0], [math.log(0.9), math.log(0.1), -30.0]])
"""About ln 2 = 0.693 nats, a fork; and 0.325 nats, none."""


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return make_model(sharp=0.6), make_tokenizer()


def sampler_of(tiny: tuple[Any, Any], seed: int = 0, samples: int = 3) -> Sampler:
    model, tokenizer = tiny
    prompts = [tokenizer(text)["input_ids"] for text in ("What is 1?", "And 2", "Three, perhaps more than that?")]
    asked = Asked("b", ["p0", "p1", "p2"], prompts, ["1", "2", "3"], DEFAULT, 12)
    return Sampler(model, tokenizer, asked, samples, seed, batch_size=4)


def drawn(rows: list[Row]) -> list[list[int]]:
    return [row.drawn for row in rows]


def test_greedy_at_forks_by_hand() -> None:
    """The fork keeps its likeliest token only; the other row has its logits halved."""
    logits = LOGITS + torch.tensor([0.0, 0.01, 0.0])
    changed = SplitTemperature(T_fork=0.0, T_other=2.0)(logits)
    assert changed[0].tolist() == [-math.inf, 0.0, -math.inf]
    torch.testing.assert_close(changed[1], logits[1] / 2)


def test_greedy_elsewhere_by_hand() -> None:
    changed = SplitTemperature(T_fork=0.5, T_other=0.0)(LOGITS)
    torch.testing.assert_close(changed[0], LOGITS[0] * 2)
    assert changed[1].tolist() == [0.0, -math.inf, -math.inf]


def test_above_zero_it_is_the_decoding_rule_of_the_package() -> None:
    logits = 2 * torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    ours, theirs = SplitTemperature(0.3, 1.7, 1.5), ForkTemperature(0.3, 1.7, 1.5)
    assert torch.equal(ours(logits), theirs(logits))
    assert torch.equal(ours.doubtful(logits), theirs.doubtful(logits))


def test_a_close_call_between_two_tokens_of_a_greedy_row_is_doubtful() -> None:
    logits = torch.tensor([[0.0, 5e-5, -9.0], [0.0, 1.0, -9.0]])
    assert SplitTemperature(0.0, 0.0, 0.1).doubtful(logits).tolist() == [True, False]
    assert SplitTemperature(1.0, 0.0, 0.1).doubtful(logits).tolist() == [False, False]


@pytest.mark.parametrize("values", [{"T_fork": -0.1}, {"T_other": math.inf}, {"T_fork": math.nan}])
def test_temperatures_that_are_none(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match="expected 0"):
        SplitTemperature(**values)


def test_both_at_one_draws_what_plain_sampling_draws(tiny: tuple[Any, Any]) -> None:
    sampler = sampler_of(tiny)
    plain = sampler.draw(None)
    assert drawn(sampler.draw(SplitTemperature(1.0, 1.0, 1.0))) == drawn(plain)
    assert len({tuple(row.drawn) for row in plain}) == len(plain)  # samples of a problem differ
    # And what the sampler draws without any of this.
    bare = BatchedSampler(*tiny, batch_size=9)
    rows = [Row(row.index, row.prompt, row.seed, row.limit) for row in plain]
    for _ in bare.run(rows, Sampling(max_tokens=12)):
        pass
    assert drawn(rows) == drawn(plain)


def test_both_at_zero_is_greedy_whatever_the_seed(tiny: tuple[Any, Any]) -> None:
    rows = sampler_of(tiny).draw(SplitTemperature(0.0, 0.0, 1.0))
    assert drawn(rows) == drawn(sampler_of(tiny, seed=7).draw(SplitTemperature(0.0, 0.0, 1.0)))
    greedy = [Row(row.index, row.prompt, row.seed, row.limit) for row in rows]
    for _ in BatchedSampler(*tiny).run(greedy, Sampling(temperature=0.0, max_tokens=12)):
        pass
    assert drawn(greedy) == drawn(rows)


def test_a_threshold_nothing_reaches_leaves_the_other_temperature_alone(tiny: tuple[Any, Any]) -> None:
    sampler = sampler_of(tiny)
    assert drawn(sampler.draw(SplitTemperature(3.0, 1.0, 99.0))) == drawn(sampler.draw(None))
    assert drawn(sampler.draw(SplitTemperature(1.0, 0.5, 99.0))) != drawn(sampler.draw(None))


def test_arms_are_each_pair_once_with_both_at_one_first() -> None:
    assert arms_of([2, 1, 0], [1, 0.5]) == [(1, 1), (0, 1), (2, 1), (1, 0.5)]


def test_the_sweep_measures_each_arm_against_both_at_one(tiny: tuple[Any, Any]) -> None:
    said: list[str] = []
    sweep = sweep_temperatures(sampler_of(tiny), [0, 1], [1, 2], percentile=80, say=said.append)
    entropies = entropies_of(sampler_of(tiny).draw(None))
    assert sweep.threshold == pytest.approx(float(np.percentile(entropies, 80)))
    assert [(arm.high, arm.low) for arm in sweep.arms] == [(1, 1), (0, 1), (1, 2)]
    assert sweep.arms[0].forks == pytest.approx((entropies > sweep.threshold).mean())
    assert sweep.arms[0].tokens == len(entropies) / 9
    assert len(sweep.differences) == 2
    assert len(said) == 3
    for arm, paired in zip(sweep.arms[1:], sweep.differences, strict=True):
        assert paired.difference == pytest.approx(arm.accuracies.mean() - sweep.arms[0].accuracies.mean())


def test_samples_of_a_problem_count_together() -> None:
    """An arm's accuracies are a number a problem: the right answers among its samples."""
    model, tokenizer = open_policy("builtin")
    asked = Asked("b", ["p0", "p1"], [tokenizer(text)["input_ids"] for text in ("1+2=", "2+3*4=")], ["3", "14"],
                  DEFAULT, 48)  # fmt: skip
    arm = sweep_temperatures(Sampler(model, tokenizer, asked, 8, 0), [1], [1], say=lambda _: None).arms[0]
    assert arm.accuracies.shape == (2,)
    assert set((8 * arm.accuracies).tolist()) <= set(range(9))
    assert arm.interval.low <= arm.accuracies.mean() <= arm.interval.high


def test_temperatures_as_they_are_typed() -> None:
    assert temperatures_in("0,0.5,1", "--high") == [0, 0.5, 1]
    for text in ("", "a", "1,-1", "inf", "nan", "1;2"):
        with pytest.raises(UserError, match=r"--low is .*; expected temperatures of 0 or more"):
            temperatures_in(text, "--low")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--percentile", "150"], "--percentile is 150.0; expected 0 to 100"),
        (["--percentile", "nan"], "--percentile is nan; expected 0 to 100"),
        (["--threshold", "-1"], "--threshold is -1.0; expected nats, at least 0"),
        (["--samples", "0"], "--samples is 0; expected at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused_before_a_model_is_loaded(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rlvr.analysis.scoring.open_policy", lambda place: pytest.fail(f"{place} was loaded"))
    assert main(["analyze", "temperatures", "builtin", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_command_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["analyze", "temperatures", "builtin", "--problems", "6", "--samples", "2", "--high", "0,2",
               "--low", "0.5", "--out", str(tmp_path)]  # fmt: skip
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "next: rlvr analyze forks builtin" in printed
    rows = list(csv.DictReader((tmp_path / "temperatures.csv").open()))
    assert [(row["at_forks"], row["elsewhere"]) for row in rows] == [
        ("1.0", "1.0"), ("0.0", "1.0"), ("2.0", "1.0"), ("1.0", "0.5"),
    ]  # fmt: skip
    assert (tmp_path / "temperatures.svg").is_file()
    assert main([*command, "--samples", "0"]) == 2
    assert "--samples is 0" in capsys.readouterr().err
