"""Tables and figures of what records show."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlvr.analysis.entropy import CERTAIN, TRACES, Distribution
from rlvr.analysis.output import BLUE, ORANGE, Finding, plain_numbers
from rlvr.analysis.tokenizers import text_of
from rlvr.analysis.vocabulary import TokenTable
from rlvr.evaluation.wording import Sheet, percent
from rlvr.report.tokens import Decoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORK = 80
"""The percentile above which the paper speaks of forking tokens."""

BARS = 20
LOWEST_DRAWN = 1e-6
SHOWN_TRACES = (50, 80, 95)


def of_distribution(found: Distribution, notes: Sequence[str]) -> Finding:
    """Histogram and percentiles; the histogram in the CSV file."""
    rows = [("tokens", f"{found.count:,}"), ("mean", _nats(found.mean)), (f"below {CERTAIN}", percent(found.certain))]
    rows += [(f"percentile {at:g}", _nats(value)) for at, value in found.percentiles.items()]
    sheet = Sheet("Token entropy, nats", ("what", "value"), rows, notes, left=("what",))
    table: list[dict[str, Any]] = [{"kind": what, "value": value} for what, value in _numbers(found).items()]
    bins = zip(found.edges[:-1].tolist(), found.edges[1:].tolist(), found.counts.tolist(), strict=True)
    table += [{"kind": "bin", "low": low, "high": high, "value": count} for low, high, count in bins]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.bar(found.edges[:-1], found.counts, np.diff(found.edges), align="edge", color=BLUE)
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        fork = found.percentiles.get(FORK)
        if fork is not None:
            axes.axvline(fork, color=ORANGE, linestyle="--", label=f"{FORK}th percentile, {fork:.3f} nats")
            axes.legend()
        axes.set_xlabel("token entropy, nats")
        axes.set_ylabel("tokens")

    paper = (
        "most tokens are almost certain and few are not. Qwen3-8B on AIME at temperature 1 has 50.64 % below 0.01 nats "
        "and its 80th percentile at 0.672 (arXiv 2506.01939, section 3)."
    )
    return Finding("distribution", sheet, table, draw, paper)


def _numbers(found: Distribution) -> dict[str, float]:
    named = {f"percentile {at:g}": value for at, value in found.percentiles.items()}
    return {"tokens": found.count, "mean": found.mean, f"share below {CERTAIN}": found.certain, **named}


def _nats(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else f"{value:.2g}"


def of_tokens(table: TokenTable, decoder: Decoder, show: int, minimum: int, notes: Sequence[str]) -> Finding:
    """The ends of the list; all of it in the CSV file."""
    texts = [text_of(decoder.decode, int(token)) for token in table.ids]
    numbers = list(zip(table.ids.tolist(), texts, table.counts.tolist(), table.means, table.kept, strict=True))
    low = numbers[max(len(numbers) - show, min(show, len(numbers))) :]
    parts = [("highest", numbers[:show]), ("lowest", low[::-1])]
    rows = [
        (part, text, f"{count:,}", _nats(float(mean)), percent(float(kept)))
        for part, entries in parts
        for _, text, count, mean, kept in entries
    ]
    columns = ("mean entropy", "token", "count", "nats", "kept")
    title = f"{len(numbers)} tokens that stand {minimum} times or more"
    sheet = Sheet(title, columns, rows, notes, left=("mean entropy", "token"))
    csv = [
        {"rank": rank, "token_id": token, "text": text, "count": count, "mean_entropy": float(mean),
         "kept_share": float(kept)}
        for rank, (token, text, count, mean, kept) in enumerate(numbers, 1)
    ]  # fmt: skip
    paper = (
        "high are words that steer: wait, however, thus, since, suppose, assume, given; low are word endings, code and "
        "parts of formulas (arXiv 2506.01939, figure 2)."
    )
    bars = [
        (text, float(mean)) for _, text, _, mean, _ in [*numbers[:BARS], *numbers[max(BARS, len(numbers) - BARS) :]]
    ]
    return Finding("tokens", sheet, csv, lambda figure: _bars(figure, bars), paper, (6.4, 1.2 + 0.17 * len(bars)))


def _bars(figure: "Figure", bars: Sequence[tuple[str, float]]) -> None:
    axes = figure.subplots()
    colours = [BLUE if place < BARS else ORANGE for place in range(len(bars))]
    axes.barh(range(len(bars)), [mean for _, mean in bars], color=colours)
    axes.set_yticks(range(len(bars)), [text for text, _ in bars], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("mean entropy, nats")
    axes.grid(axis="y", visible=False)


def of_traces(steps: np.ndarray, values_SP: np.ndarray, tokens: Sequence[int], left_out: int) -> Finding:
    """Percentiles by step.

    Args:
        steps: (S,) optimizer steps.
        values_SP: (S, P) nats at the percentiles `TRACES`.
        tokens: of each step.
        left_out: completions that were not scored.
    """
    shown = [TRACES.index(at) for at in SHOWN_TRACES]
    rows = [
        (str(step), f"{count:,}", *(_nats(float(values[index])) for index in shown), _nats(float(values[-1])))
        for step, count, values in zip(steps.tolist(), tokens, values_SP, strict=True)
    ]
    notes = [f"{left_out:,} completions were not scored and are left out."] if left_out else []
    columns = ("step", "tokens", *(f"p{at}" for at in SHOWN_TRACES), "p100")
    sheet = Sheet("Percentiles of token entropy by step, nats", columns, _thin(rows), notes, left=())
    csv = [
        {"step": step, "tokens": count, **{f"p{at}": float(value) for at, value in zip(TRACES, values, strict=True)}}
        for step, count, values in zip(steps.tolist(), tokens, values_SP, strict=True)
    ]

    def draw(figure: "Figure") -> None:
        from matplotlib import colormaps

        axes = figure.subplots()
        for index, at in enumerate(TRACES):
            label = f"{at}th" if at % 20 == 0 else None
            lines = np.maximum(values_SP[:, index], LOWEST_DRAWN)
            axes.plot(steps, lines, color=colormaps["viridis"](at / 110), label=label, marker="." * (len(steps) == 1))
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(f"token entropy, nats (at least {LOWEST_DRAWN:g})")
        figure.legend(title="percentile", reverse=True, loc="outside right center")

    paper = (
        "during training high percentiles move and low ones stay where they are: RLVR changes the entropy of forks "
        "(arXiv 2506.01939, section 4)."
    )
    return Finding("traces", sheet, csv, draw, paper)


def _thin(rows: Sequence[tuple[str, ...]], most: int = 12) -> list[tuple[str, ...]]:
    """At most so many rows, evenly spaced, the first and the last among them; all are in the CSV file."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)]
