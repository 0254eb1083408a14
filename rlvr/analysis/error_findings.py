"""Table and figure of entropy as an error signal."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from rlvr.analysis.answers import PREDICTORS
from rlvr.analysis.auroc import Area
from rlvr.analysis.errors import Signal
from rlvr.analysis.output import BLUE, Finding
from rlvr.evaluation.wording import NOTHING, Sheet, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def of_errors(signals: Sequence[Signal], notes: Sequence[str]) -> Finding:
    """AUROC of every predictor by label."""
    rows = [
        (
            one.label,
            one.predictor,
            f"{one.completions:,}",
            f"{one.problems:,}",
            percent(one.wrong),
            _area(one.area),
            _area(one.within),
        )
        for one in signals
    ]
    columns = ("completions of", "predictor", "completions", "problems", "wrong", "AUROC", "within problems")
    said = [
        *notes,
        "AUROC of a larger number for a wrong answer: 0.5 is chance. In brackets 95 % intervals over problems. Within "
        "problems only samples of one problem are compared.",
    ]
    if any(isnan(one.area.value + one.within.value) for one in signals):
        said.append(f"{NOTHING}: all answers are right, or all wrong, or one number stands for all of a problem.")
    sheet = Sheet("Entropy as a signal of a wrong answer", columns, rows, said, left=("completions of", "predictor"))
    csv = [
        {"completions_of": one.label, "predictor": one.predictor, "completions": one.completions,
         "problems": one.problems, "wrong": one.wrong, "auroc": one.area.value, "low": one.area.low,
         "high": one.area.high, "auroc_within": one.within.value, "low_within": one.within.low,
         "high_within": one.within.high}
        for one in signals
    ]  # fmt: skip
    paper = (
        "semantic entropy tells wrong answers with an AUROC of 0.790 on average, the entropy of tokens with 0.691 "
        "(Farquhar et al. 2024, on other models and questions). Length is a control: a policy that rambles when it is "
        "lost gives it a signal too."
    )
    labels = list(dict.fromkeys(one.label for one in signals))
    return Finding(
        "errors", sheet, csv, lambda figure: _draw(figure, signals, labels), paper, (6.4, 1.4 + 0.8 * len(labels))
    )


def _area(area: Area) -> str:
    if isnan(area.value):
        return NOTHING
    return f"{area.value:.3f}" + ("" if isnan(area.low) else f" ({area.low:.3f} to {area.high:.3f})")


def _draw(figure: "Figure", signals: Sequence[Signal], labels: Sequence[str]) -> None:
    axes = figure.subplots()
    markers = dict(zip(PREDICTORS, "os^D", strict=True))
    shades = dict(zip(PREDICTORS, (BLUE, "#d55e00", "#009e73", "0.45"), strict=True))
    for name in PREDICTORS:
        found = [one for one in signals if one.predictor == name and not isnan(one.area.value)]
        places = [labels.index(one.label) + 0.2 * (PREDICTORS.index(name) - 1.5) for one in found]
        values = [one.area.value for one in found]
        below = [0.0 if isnan(one.area.low) else max(0.0, one.area.value - one.area.low) for one in found]
        above = [0.0 if isnan(one.area.high) else max(0.0, one.area.high - one.area.value) for one in found]
        if found:
            axes.errorbar(
                values, places, xerr=[below, above], marker=markers[name], color=shades[name], linestyle="none",
                capsize=2, label=name,
            )  # fmt: skip
    axes.axvline(0.5, color="0.3", linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("AUROC for a wrong answer")
    figure.legend(loc="outside upper center", ncols=4)
