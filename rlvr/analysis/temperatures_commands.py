"""`rlvr analyze temperatures`. Imported for `rlvr --help`, so it imports what is heavy inside its functions."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rlvr.analysis.output import Finding
    from rlvr.analysis.temperatures import Arm, Asked, Sweep

TEMPERATURES = "0,0.3,0.6,1,1.5,2,3"
PAPER = (
    "in arXiv 2506.01939 (Qwen3-8B, AIME 2024 and 2025) lowering the temperature at forks costs far more than lowering "
    "it elsewhere; raising it to 2 or 3 does no harm at forks, and elsewhere breaks the answers"
)


def add_parser(actions: Any) -> None:
    """Add the action."""
    action = actions.add_parser(
        "temperatures", help="measure accuracy with another temperature at forks",
        description="Accuracy when the temperature differs at forks and elsewhere (arXiv 2506.01939, section 3). Each "
        "sweep leaves the other temperature at 1. A fork has more entropy than the threshold, at temperature 1.",
    )  # fmt: skip
    action.add_argument("model", metavar="MODEL", help="builtin, a folder, a run folder or a hub id")
    action.add_argument(
        "--benchmark", default="arithmetic", metavar="NAME", help="where the problems are from (arithmetic)"
    )
    action.add_argument("--benchmarks-dir", type=Path, metavar="DIR", help="the benchmark's file, instead of the hub")
    action.add_argument("--protocol", default="paper_8020", metavar="NAME", help="how they are put (paper_8020)")
    action.add_argument("--problems", type=int, metavar="N", help="the first N problems; all if not given")
    action.add_argument("--samples", type=int, default=4, metavar="N", help="of each problem and arm (4)")
    action.add_argument("--max-tokens", type=int, metavar="N", help="of an answer; the benchmark's or the protocol's")
    which = action.add_mutually_exclusive_group()
    which.add_argument("--threshold", type=float, default=0.672, metavar="NATS", help="a fork has more entropy (0.672)")
    which.add_argument("--percentile", type=float, metavar="P", help="the threshold as a percentile of plain samples")
    action.add_argument("--high", default=TEMPERATURES, metavar="T,T,...", help=f"at forks ({TEMPERATURES})")
    action.add_argument("--low", default=TEMPERATURES, metavar="T,T,...", help=f"elsewhere ({TEMPERATURES})")
    action.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    action.add_argument("--batch-size", type=int, default=256, metavar="N", help="memory and speed only (256)")
    action.add_argument("--out", type=Path, default=Path("analysis"), metavar="DIR", help="for the files (analysis)")
    action.add_argument("--format", choices=("svg", "png", "pdf"), default="svg", help="of the figure (svg)")


def temperatures_in(text: str, name: str) -> list[float]:
    """Numbers out of `0,0.3,1`.

    Raises:
        UserError: for what is none, or an infinite or negative one.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [-1.0]
    if not all(0 <= value < float("inf") for value in found):
        raise UserError(f"{name} is {text}; expected temperatures of 0 or more, e.g. 0,0.5,1")
    return found


def temperatures(arguments: argparse.Namespace) -> int:
    """`rlvr analyze temperatures`."""
    from rlvr.analysis.output import publish
    from rlvr.analysis.scoring import open_policy
    from rlvr.analysis.temperatures import Sampler, check_forks, sweep_temperatures

    check_forks(arguments.threshold, arguments.percentile)
    highs, lows = temperatures_in(arguments.high, "--high"), temperatures_in(arguments.low, "--low")
    for name in ("samples", "problems", "max_tokens", "batch_size"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected at least 1")
    model, tokenizer = open_policy(arguments.model)
    asked = _asked(arguments, tokenizer)
    sampler = Sampler(model, tokenizer, asked, arguments.samples, arguments.seed, arguments.batch_size)
    sweep = sweep_temperatures(sampler, highs, lows, threshold=arguments.threshold, percentile=arguments.percentile)
    title = f"Temperatures at forks and elsewhere: {arguments.model} on {len(asked.ids)} problems of {asked.benchmark}"
    publish(
        finding_of(sweep, title, arguments.samples), arguments.out, arguments.format,
        f"rlvr analyze forks {arguments.model} --benchmark {arguments.benchmark}",
    )  # fmt: skip
    return 0


def _asked(arguments: argparse.Namespace, tokenizer: Any) -> "Asked":
    from rlvr.analysis.temperatures import Asked
    from rlvr.config.evaluation import compose_evaluation
    from rlvr.evaluation.benchmarks import load_benchmark
    from rlvr.evaluation.encoding import encode_requests
    from rlvr.evaluation.protocol import protocol_of
    from rlvr.evaluation.requests import Key, Request

    loaded = load_benchmark(arguments.benchmark, arguments.benchmarks_dir)
    protocol = protocol_of(compose_evaluation([f"protocol={arguments.protocol}"]), loaded, "")
    most = protocol.sampling.max_tokens if arguments.max_tokens is None else arguments.max_tokens
    problems = loaded.problems[: arguments.problems]
    requests = [Request(Key(loaded.name, one.problem_id, 0), protocol.render(one.question), 0) for one in problems]
    return Asked(
        loaded.name, [one.problem_id for one in problems], encode_requests(tokenizer, requests),
        [one.gold for one in problems], protocol.grading, most,
    )  # fmt: skip


def finding_of(sweep: "Sweep", title: str, samples: int) -> "Finding":
    """The table, the rows of the CSV file and the figure of a sweep."""
    from rlvr.analysis.output import Finding
    from rlvr.evaluation.wording import Sheet

    columns = ["at forks", "elsewhere", "accuracy", "difference", "p", "forks", "tokens", "cut"]
    notes = [
        f"Forks: tokens of more than {sweep.threshold:.4g} nats at temperature 1. {samples} samples a problem and arm, "
        "from the same random numbers in every arm.",
        "Accuracy with 95 % intervals over problems. Differences from both temperatures at 1, in points, paired by "
        "problem; their intervals hold for all arms at once, and so do the p-values.",
    ]
    if not sweep.arms[0].forks:
        notes.append("No token was a fork: every arm at forks is plain sampling. Take a lower threshold.")
    return Finding(
        "temperatures", Sheet(title, columns, _texts(sweep), notes, ()), _rows(sweep),
        lambda figure: _draw(figure, sweep), PAPER,
    )  # fmt: skip


def _texts(sweep: "Sweep") -> list[list[str]]:
    from rlvr.evaluation.wording import NOTHING, p_text, percent, percent_interval, points

    texts = []
    for arm, paired in zip(sweep.arms, [None, *sweep.differences], strict=True):
        cells = [NOTHING, NOTHING]
        if paired is not None:
            cells = [points(paired.difference, paired.low, paired.high).replace(" points", ""),
                     p_text(paired.p_value).removeprefix("p = ").removeprefix("p ")]  # fmt: skip
        texts.append([
            f"{arm.high:g}", f"{arm.low:g}", percent_interval(arm.interval), *cells, percent(arm.forks),
            f"{arm.tokens:.1f}", percent(arm.cut),
        ])  # fmt: skip
    return texts


def _rows(sweep: "Sweep") -> list[dict[str, Any]]:
    rows = []
    for arm, paired in zip(sweep.arms, [None, *sweep.differences], strict=True):
        compared = {} if paired is None else {
            "difference": paired.difference, "difference_low": paired.low, "difference_high": paired.high,
            "p_value": paired.p_value,
        }  # fmt: skip
        rows.append({
            "at_forks": arm.high, "elsewhere": arm.low, "threshold": sweep.threshold, "accuracy": arm.interval.mean,
            "low": arm.interval.low, "high": arm.interval.high, "forks": arm.forks, "tokens": arm.tokens,
            "cut": arm.cut, **compared,
        })  # fmt: skip
    return rows


def _draw(figure: "Figure", sweep: "Sweep") -> None:
    """Two curves of accuracy, each against the temperature that it moves."""
    from matplotlib.ticker import PercentFormatter

    from rlvr.analysis.output import BLUE, ORANGE

    axes = figure.subplots()
    _curve(axes, [arm for arm in sweep.arms if arm.low == 1], "high", "at forks, 1 elsewhere", BLUE, "-")
    _curve(axes, [arm for arm in sweep.arms if arm.high == 1], "low", "elsewhere, 1 at forks", ORANGE, "--")
    axes.set_xlabel("temperature")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend()


def _curve(axes: "Axes", arms: "Sequence[Arm]", moved: str, label: str, colour: str, dash: str) -> None:
    ordered = sorted(arms, key=lambda arm: getattr(arm, moved))
    intervals = [arm.interval for arm in ordered]
    spread = [[one.mean - one.low for one in intervals], [one.high - one.mean for one in intervals]]
    axes.errorbar(
        [getattr(arm, moved) for arm in ordered], [one.mean for one in intervals], yerr=spread, label=label,
        color=colour, linestyle=dash, marker="o", markersize=4, capsize=2.5,
    )  # fmt: skip


ACTIONS = {"temperatures": temperatures}
