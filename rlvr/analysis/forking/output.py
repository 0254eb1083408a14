"""What `rlvr analyze forks` leaves behind: `forks.csv`, the figure, `summary.json`, and a table in the terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlvr.analysis.forking.cells import Cost
from rlvr.analysis.forking.outcomes import OTHER
from rlvr.analysis.forking.result import Fork, ForkResult, PositionOutcomes
from rlvr.analysis.output import Finding
from rlvr.evaluation.wording import Sheet, p_text, percent, write_whole
from rlvr.report.tokens import token_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
OTHER_COLOUR = "#999999"
MOST_LABELS = 48
"""Positions up to which their tokens stand below the figure."""

PAPER = (
    "in arXiv 2412.07961 most tokens leave the outcome as it is, and a few, often unremarkable ones such as a bracket, "
    "decide it; no table to match"
)


def finding_of(result: ForkResult, title: str) -> Finding:
    """The table of forks, the rows of the CSV file and the figure."""
    return Finding(
        "forks", _sheet(result, title), csv_rows(result), lambda figure: draw_forks(figure, result), PAPER,
        figure_size(result),
    )  # fmt: skip


def figure_size(result: ForkResult) -> tuple[float, float]:
    """Inches: wider for more positions."""
    return min(11.0, max(6.4, 0.16 * len(result.positions))), 6.6


def csv_rows(result: ForkResult) -> list[dict[str, Any]]:
    """A row a position; `fork` says that the outcomes change between this position and the next one looked at."""
    forks = {fork.first for fork in result.forks}
    return [
        {
            "position": one.position, "token": one.branches[0].token, "text": one.text, "prob": one.branches[0].prob,
            "entropy": one.entropy, "branches": len(one.branches), "mass": one.mass, "drift": one.drift, "tv": one.tv,
            "hazard": one.hazard, "expected_distance": one.distance, "survival": one.survival,
            "fork": int(one.position in forks),
            **{f"o_{name}": float(share) for name, share in zip(result.categories, one.outcomes, strict=True)},
        }
        for one in result.positions
    ]  # fmt: skip


def main_outcomes(result: ForkResult, shares: np.ndarray, most: int = 2) -> str:
    """`12 (80 %), 9 (20 %)`: the largest shares; right answers have a sign."""
    order = np.argsort(-shares, kind="stable")[:most]
    names = [token_text(name) + "*" * (name == result.right) for name in result.categories]
    return ", ".join(f"{names[at]} {100 * shares[at]:.0f} %" for at in order if shares[at] > 0)


def _sheet(result: ForkResult, title: str) -> Sheet:
    by_place = {one.position: one for one in result.positions}
    rows = []
    for fork in result.forks:
        one = by_place[fork.first]
        place = str(fork.first) if fork.first == fork.last else f"{fork.first}-{fork.last}"
        rows.append([
            place, token_text(fork.text), _alternatives(one), f"{one.entropy:.2f}", f"{one.hazard:.2f}",
            main_outcomes(result, fork.before), main_outcomes(result, fork.after), f"{fork.gain:.0f}",
        ])  # fmt: skip
    columns = ["position", "token", "could have been", "entropy", "hazard", "outcomes before", "after", "gain"]
    return Sheet(title, columns, rows, _notes(result),
                 ("position", "token", "could have been", "outcomes before", "after"))  # fmt: skip


def _notes(result: ForkResult) -> list[str]:
    """What to know when reading the table."""
    changes, count = result.changes, len(result.forks)
    largest = max(one.drift for one in result.positions)
    notes = [
        f"{count} fork{'s' * (count != 1)} in {len(result.positions)} positions; {p_text(changes.p_value)} against "
        f"outcomes that never change. A change had to save a deviance of {changes.penalty:.1f}.",
        f"Survival of the base path: {percent(result.positions[-1].survival)}. Largest drift: {largest:.2f}. Before "
        f"the first token: {main_outcomes(result, result.start, 3)}.",
    ]
    if result.right is not None:
        notes.append("* the right answer")
    smallest = min(result.positions, key=lambda one: one.mass)
    if smallest.mass < 0.9:
        notes.append(
            f"At position {smallest.position} the branches have {percent(smallest.mass)} of the probability; a lower "
            "--threshold or more --alternates would look at the rest."
        )
    return notes


def _alternatives(one: PositionOutcomes, most: int = 3) -> str:
    return ", ".join(f"{token_text(branch.text)} {branch.prob:.2f}" for branch in one.branches[1 : most + 1])


def draw_forks(figure: "Figure", result: ForkResult) -> None:
    """Outcomes along the path, how far they moved, and what each token put at stake."""
    from matplotlib import rcParams

    x = [one.position for one in result.positions]
    axes = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [1.6, 1, 1]})
    shares = np.stack([one.outcomes for one in result.positions])
    _areas(axes[0], x, shares, result)
    _lines(axes[1], x, [("drift", [one.drift for one in result.positions], "-"),
                        ("TV to the position before", [one.tv for one in result.positions], "--")])  # fmt: skip
    axes[1].set_ylabel("moved")
    _lines(axes[2], x, [("entropy (nats)", [one.entropy for one in result.positions], "-"),
                        ("hazard", [one.hazard for one in result.positions], "--"),
                        ("survival", [one.survival for one in result.positions], ":")])  # fmt: skip
    axes[2].set_ylabel("at stake")
    for panel in axes:
        for fork in result.forks:
            middle, ink = (fork.first + fork.last + 1) / 2, rcParams["text.color"]
            panel.axvline(middle, color=ink, linewidth=1, linestyle=(0, (2, 2)))
    _label_tokens(axes[2], result)


def _areas(axes: "Axes", x: Sequence[int], shares: np.ndarray, result: ForkResult) -> None:
    colours = iter(COLOURS)
    shown = [OTHER_COLOUR if name == OTHER else next(colours) for name in result.categories]
    labels = [
        token_text(name) + (" (right)" if name == result.right else "") for name in result.categories
    ]  # fmt: skip
    axes.stackplot(x, shares.T, colors=shown, labels=labels, alpha=0.85)
    axes.set_ylim(0, 1)
    axes.set_ylabel("outcomes")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4)


def _lines(axes: "Axes", x: Sequence[int], lines: Sequence[tuple[str, list[float], str]]) -> None:
    for (label, values, dash), colour in zip(lines, COLOURS, strict=False):
        axes.plot(x, values, dash, color=colour, label=label, marker="o", markersize=2.5)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=3)


def _label_tokens(axes: "Axes", result: ForkResult) -> None:
    axes.set_xlabel("position; dashed: a fork, behind its token")
    if len(result.positions) <= MOST_LABELS:
        texts = [f"{one.position}\n{token_text(one.text).strip()[:10]}" for one in result.positions]
        axes.set_xticks([one.position for one in result.positions], texts, fontsize=7)


def fork_facts(result: ForkResult, fork: Fork) -> dict[str, Any]:
    """A fork as JSON can hold it."""
    one = next(one for one in result.positions if one.position == fork.first)
    return {
        "position": fork.first, "last_position": fork.last, "text": fork.text, "gain": fork.gain,
        "entropy": one.entropy, "hazard": one.hazard,
        "branches": [{"text": branch.text, "prob": branch.prob} for branch in one.branches],
        "before": dict(zip(result.categories, fork.before.tolist(), strict=True)),
        "after": dict(zip(result.categories, fork.after.tolist(), strict=True)),
    }  # fmt: skip


def write_summary(out: Path, result: ForkResult, facts: dict[str, Any], cost: Cost) -> Path:
    """`summary.json`.

    Args:
        out: folder.
        result: what was found.
        facts: about model, question and settings.
        cost: of the whole analysis, whenever it was drawn.
    """
    summary = {
        **facts, "categories": result.categories, "right": result.right,
        "start": dict(zip(result.categories, result.start.tolist(), strict=True)),
        "forks": [fork_facts(result, fork) for fork in result.forks], "p_value": result.changes.p_value,
        "penalty": result.changes.penalty, "survival": result.positions[-1].survival,
        "positions": len(result.positions), "continuations": cost.continuations,
    }  # fmt: skip
    return write_whole(out / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
