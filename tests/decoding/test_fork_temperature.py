"""One temperature at forks, another elsewhere: by hand, at the threshold, row by row."""

import math

import pytest
import torch

from rlvr.config.convert import build_variant
from rlvr.decoding.base import Decoding
from rlvr.decoding.fork_temperature import ForkTemperature
from rlvr.errors import UserError


def test_forks_and_others_by_hand() -> None:
    """Two equal tokens have ln 2 = 0.693 nats, above 0.672; 0.9 and 0.1 have 0.325."""
    logits = torch.tensor([[0.0, 0.0], [math.log(0.9), math.log(0.1)], [3.0, 3.0]])
    changed = ForkTemperature(T_fork=2.0, T_other=0.5)(logits)
    torch.testing.assert_close(changed, torch.stack([logits[0] / 2, logits[1] * 2, logits[2] / 2]))
    # 0.9^2 : 0.1^2 = 81 : 1.
    torch.testing.assert_close(torch.softmax(changed[1], -1), torch.tensor([81 / 82, 1 / 82]))


@pytest.mark.parametrize(("threshold", "fork"), [(0.69, True), (0.70, False), (0.0, True)])
def test_a_fork_has_more_than_the_threshold(threshold: float, fork: bool) -> None:
    logits = torch.tensor([[1.0, 1.0]])
    changed = ForkTemperature(T_fork=4.0, T_other=1.0, threshold=threshold)(logits)
    assert torch.equal(changed, logits / 4 if fork else logits)


def test_the_papers_setting_is_the_default_and_changes_nothing_at_one() -> None:
    rule = ForkTemperature()
    assert (rule.T_fork, rule.T_other, rule.threshold) == (1.0, 1.0, 0.672)
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rule(logits), logits)


def test_entropy_is_measured_at_temperature_one_whatever_the_rules_own() -> None:
    logits = 3 * torch.randn(200, 30, generator=torch.Generator().manual_seed(1))
    logs = torch.log_softmax(logits.double(), dim=-1)
    forks = -(logs.exp() * logs).sum(dim=-1) > 1.2
    assert 20 < int(forks.sum()) < 180
    changed = ForkTemperature(T_fork=0.7, T_other=1.3, threshold=1.2)(logits)
    torch.testing.assert_close(changed, logits / torch.where(forks, 0.7, 1.3)[:, None])


def test_rows_do_not_see_one_another_and_the_logits_stay_as_they_are() -> None:
    logits = 2 * torch.randn(20, 30, generator=torch.Generator().manual_seed(2))
    before, rule = logits.clone(), ForkTemperature(T_fork=0.5, T_other=2.0, threshold=1.5)
    together = rule(logits)
    assert torch.equal(logits, before)
    assert torch.equal(torch.cat([rule(row[None]) for row in logits]), together)
    assert together.dtype == torch.float32


def test_a_token_that_cannot_come_stays_impossible() -> None:
    changed = ForkTemperature(T_fork=0.5, T_other=0.5)(torch.tensor([[0.0, 0.0, -torch.inf]]))
    assert changed.tolist() == [[0.0, 0.0, -math.inf]]


@pytest.mark.parametrize("values", [{"T_fork": 0}, {"T_other": -1}, {"T_fork": math.nan}, {"threshold": -0.1}])
def test_numbers_that_are_none(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"decoding.{next(iter(values))} is .*; expected"):
        ForkTemperature(**values)


def test_it_is_chosen_by_name() -> None:
    rule = build_variant("decoding", {"name": "fork_temperature", "T_fork": 0.5})
    assert rule == ForkTemperature(T_fork=0.5)
    assert rule.name == "fork_temperature"


def test_a_rule_without_a_change_says_so() -> None:
    with pytest.raises(TypeError, match=r"Decoding changes no logits; define __call__\(\)"):
        Decoding()(torch.zeros(1, 2))


def test_a_row_at_the_threshold_is_doubtful() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(0.9), math.log(0.1)]])
    for offset, expected in ((0.0, True), (5e-5, True), (-5e-5, True), (2e-4, False), (-2e-4, False)):
        assert ForkTemperature(threshold=math.log(2) + offset).doubtful(logits).tolist() == [expected, False]
