"""Entropy as an error signal: how well it tells wrong answers from right ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rlvr.analysis.answers import Answers
from rlvr.analysis.auroc import Area, auroc_interval, auroc_within

ALL = "all"


@dataclass(frozen=True)
class Signal:
    """How well one number predicts a wrong answer.

    Attributes:
        label: of the completions: `all`, or a benchmark, a level.
        predictor: its name.
        completions: with this number.
        problems: different ones among them.
        wrong: share of wrong completions.
        area: AUROC of the number for a wrong answer; above 0.5 a larger number means wrong more often.
        within: the same among samples of one problem only; NaN where the number is the same for all of them.
    """

    label: str
    predictor: str
    completions: int
    problems: int
    wrong: float
    area: Area
    within: Area


def error_signals(answers: Answers, *, resamples: int = 2000, seed: int = 0) -> list[Signal]:
    """The AUROC of every predictor, over all completions and for each label.

    Completions without a number are left out of that predictor's rows alone; a predictor that no completion has is
    left out. Intervals resample problems.

    Args:
        answers: graded completions.
        resamples: of the intervals.
        seed: of the intervals.
    """
    return [
        _signal(answers, label, rows, predictor, resamples, seed)
        for label, rows in _parts(answers)
        for predictor, values in answers.predictors.items()
        if (rows & ~np.isnan(values)).any()
    ]


def _parts(answers: Answers) -> Iterator[tuple[str, np.ndarray]]:
    """(label, (n,) bool): all first, then every label where there are several."""
    yield ALL, np.ones(len(answers.wrong), dtype=bool)
    names = sorted(set(answers.labels))
    if len(names) > 1:
        yield from ((name, answers.labels == name) for name in names)


def _signal(answers: Answers, label: str, rows: np.ndarray, predictor: str, resamples: int, seed: int) -> Signal:
    values = answers.predictors[predictor]
    known = rows & ~np.isnan(values)
    wrong, problems = answers.wrong[known], answers.problems[known]
    given = {"resamples": resamples, "seed": seed}
    area = auroc_interval(values[known], wrong, problems, **given)
    within = auroc_within(values[known], wrong, answers.draws[known], problems, **given)
    return Signal(label, predictor, int(known.sum()), len(set(problems)), float(wrong.mean()), area, within)
