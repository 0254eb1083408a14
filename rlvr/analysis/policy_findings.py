"""Tables and figures of what several policies say of the same tokens."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rlvr.analysis.output import BLUE, ORANGE, Finding, plain_numbers
from rlvr.analysis.rescoring import Completions
from rlvr.analysis.shift import Drift
from rlvr.analysis.tokenizers import text_of
from rlvr.evaluation.wording import Sheet, percent
from rlvr.report.tokens import Decode, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LISTED = 1000
"""Lowest scores in the CSV file."""

BEFORE = 12
"""Tokens of context."""


def of_overlaps(
    names: Sequence[str], shares_CC: np.ndarray, keep: float, scored: Sequence[np.ndarray], notes: Sequence[str]
) -> Finding:
    """The matrix of overlaps, with the mean entropy of each policy.

    Args:
        names: of C policies.
        shares_CC: (C, C), see `rlvr.analysis.shift.overlaps`.
        keep: share of the positions.
        scored: (N,) entropies of each policy.
        notes: on the completions.
    """
    letters = [str(number) for number in range(1, len(names) + 1)]
    means = [float(values.mean(dtype=np.float64)) for values in scored]
    rows = [
        (letter, name, f"{mean:.4f}", *(percent(float(share)) for share in shares))
        for letter, name, mean, shares in zip(letters, names, means, shares_CC, strict=True)
    ]
    title = f"Overlap of the {percent(keep)} of {scored[0].size:,} tokens with the highest entropy"
    sheet = Sheet(title, ("no.", "policy", "mean nats", *letters), rows, notes, left=("no.", "policy"))
    csv = [
        {"a": a, "b": b, "overlap": float(shares_CC[row, column]), "tokens": scored[0].size, "keep": keep}
        for row, a in enumerate(names)
        for column, b in enumerate(names)
    ]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        picture = axes.imshow(100 * shares_CC, cmap="cividis", vmin=100 * keep, vmax=100)
        for row, column in np.ndindex(shares_CC.shape):
            share = float(shares_CC[row, column])
            colour = "black" if share > (1 + keep) / 2 else "white"
            axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(names)), letters)
        axes.set_yticks(
            range(len(names)), [f"{letter}  {_short(name)}" for letter, name in zip(letters, names, strict=True)]
        )
        axes.grid(visible=False)
        figure.colorbar(picture, label="overlap, %")

    paper = (
        f"chance is {percent(keep)}. In Qwen3-14B under DAPO the overlap with the base falls from 98.9 % at step 16 to "
        "86.7 % at step 1360, so forks mostly stay where they are (arXiv 2506.01939, table 1)."
    )
    return Finding("overlap", sheet, csv, draw, paper)


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"...{name[-most + 3 :]}"


def of_drift(found: Drift, before: str, after: str, notes: Sequence[str]) -> Finding:
    """Mean change by bin."""
    edges = np.linspace(0, 100, len(found.counts) + 1)
    names = [f"{low:g}-{high:g}" for low, high in pairwise(edges)]
    arrays = (found.low, found.high, found.counts, found.means, found.errors)
    rows = [
        (name, f"{low:.4g}", f"{high:.4g}", f"{count:,}", f"{mean:+.4g}", f"{error:.2g}")
        for name, low, high, count, mean, error in zip(names, *arrays, strict=True)
    ]
    columns = ("percentile before", "from", "to", "tokens", "change", "standard error")
    sheet = Sheet(f"Change of entropy from {before} to {after}, nats", columns, rows, notes, ("percentile before",))
    csv = [
        {"percentile_from": float(edges[index]), "percentile_to": float(edges[index + 1]), "low": float(low),
         "high": float(high), "tokens": int(count), "mean_change": float(mean), "standard_error": float(error)}
        for index, (low, high, count, mean, error) in enumerate(zip(*arrays, strict=True))
    ]  # fmt: skip

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        centres = (edges[:-1] + edges[1:]) / 2
        colours = [BLUE if mean >= 0 else ORANGE for mean in found.means]
        errors = np.nan_to_num(2 * found.errors)  # one problem alone shows no spread
        axes.bar(centres, found.means, np.diff(edges) * 0.9, color=colours, yerr=errors, capsize=2, ecolor="0.3")
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=1e-4)
        plain_numbers(axes.yaxis)
        axes.set_xlabel("percentile of the entropy before")
        axes.set_ylabel("mean change, nats (bars: 2 standard errors)")

    paper = (
        "the higher the entropy was, the more it changes: from about 1e-4 nats in the lowest bins to 1e-1 in the "
        "highest, upwards (arXiv 2506.01939, section 4)."
    )
    return Finding("drift", sheet, csv, draw, paper)


def of_critical(
    completions: Completions, scores: np.ndarray, decode: Decode, show: int, notes: Sequence[str]
) -> Finding:
    """The lowest scores, with the text before them.

    Args:
        completions: n wrong ones, of N tokens together.
        scores: (N,) contrastive scores.
        decode: of the policies' tokenizer.
        show: tokens in the table.
        notes: on the completions.
    """
    csv = _lowest(completions, scores, decode, max(LISTED, show))
    rows = [
        (
            f"{entry['score']:.2g}",
            entry["token"],
            entry["before"],
            f"{entry['file']}:{entry['row']}",
            str(entry["position"]),
        )
        for entry in csv[:show]
    ]
    columns = ("score", "token", "text before", "completion", "position")
    title = f"Lowest of {scores.size:,} scores in {len(completions.prompts):,} wrong completions"
    sheet = Sheet(title, columns, rows, notes, left=("token", "text before", "completion"))

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.hist(scores, bins=50, range=(0, 1), color=BLUE)
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.set_xlabel("contrastive score s; low is critical")
        axes.set_ylabel("tokens of wrong completions")

    paper = (
        "most tokens score high and a few near 0. The paper's critical tokens, without which sampling again succeeds "
        "far more often, differ from the error that people mark in 65 % of GSM8K's and 87 % of MATH's wrong answers "
        "(arXiv 2411.19943)."
    )
    return Finding("critical", sheet, csv, draw, paper)


def _lowest(completions: Completions, scores: np.ndarray, decode: Decode, most: int) -> list[dict[str, Any]]:
    """Where the lowest of N scores stand, the lowest first."""
    ends = np.cumsum(completions.lengths)
    found = []
    for place in np.argsort(scores, kind="stable")[:most].tolist():
        row = int(np.searchsorted(ends, place, side="right"))
        position = place - int(ends[row]) + completions.lengths[row]
        ids = completions.token_ids[row].tolist()
        file, number = completions.places[row]
        before = visible(decode(ids[max(0, position - BEFORE) : position])).replace("\n", "\u21b5")
        found.append({
            "file": file, "row": number, "position": position, "token_id": ids[position],
            "token": text_of(decode, ids[position]), "score": float(scores[place]), "before": before,
        })  # fmt: skip
    return found
