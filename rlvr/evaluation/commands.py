"""The commands around evaluation: `rlvr evaluate`, `results`, `compare`, `contamination` and `card`."""

import argparse
from pathlib import Path
from typing import Any

from rlvr.errors import UserError

EXAMPLES = """examples:
  rlvr evaluate                                                       the built-in policy on the built-in task
  rlvr evaluate model=runs/x                                          every checkpoint of a run
  rlvr evaluate model=./Qwen3-8B-Base benchmarks=[aime24,aime25]      16 samples a problem, as in arXiv 2506.01939
  rlvr evaluate model='runs/*/checkpoints/*' benchmarks=[math500] protocol=qwen_greedy benchmarks_dir=./data
  rlvr evaluate model=runs/x watch=true                               each checkpoint as it appears

A stopped evaluation goes on where it was: run the same command again.
"""


COMPARE_EXAMPLES = """examples:
  rlvr compare builtin runs/x                      the trained model against where it started
  rlvr compare builtin 'runs/x/checkpoints/*'      many against one: intervals and p-values hold for the best as well
  rlvr compare runs/a/checkpoints/checkpoint-100 runs/b --benchmarks aime24
"""


def _ledger(parser: argparse.ArgumentParser, positional: bool = False) -> None:
    name, about = Path("evaluations"), "the folder that `rlvr evaluate` wrote (evaluations)"
    if positional:
        parser.add_argument("ledger", type=Path, nargs="?", default=name, metavar="LEDGER", help=about)
    else:
        parser.add_argument("--ledger", type=Path, default=name, metavar="FOLDER", help=about)


def _choice(parser: argparse.ArgumentParser, mixed: bool = True) -> None:
    parser.add_argument("--benchmarks", nargs="+", metavar="NAME", help="these only")
    parser.add_argument("--protocol", metavar="NAME", help="of the protocol, or the first digits of its hash")
    if mixed:
        parser.add_argument("--mixed", action="store_true", help="put different protocols side by side all the same")


def add_parsers(commands: Any) -> None:
    """Add the commands to the command line."""
    evaluate = commands.add_parser(
        "evaluate", help="score checkpoints on benchmarks", epilog=EXAMPLES,
        description="Sample answers to benchmarks, grade them, and keep every sample. Settings are KEY=VALUE.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    evaluate.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, e.g. samples=16 temperature=0.6")
    _reading_parsers(commands)
    _contamination_parser(commands)


def _reading_parsers(commands: Any) -> None:
    """The commands that read a ledger."""
    results = commands.add_parser(
        "results", help="show what a ledger holds", description="Tables, CSV, Markdown and a page, from the rows alone."
    )
    _ledger(results, positional=True)
    _choice(results)
    results.add_argument("--checkpoints", nargs="+", metavar="WHICH", help="labels, paths, globs or hashes")
    results.add_argument("--k", type=int, nargs="+", metavar="K", help="of pass@k and maj@k; powers of two up to n")
    results.add_argument("--output", type=Path, metavar="FOLDER", help="for the files; the ledger if not given")
    compare = commands.add_parser(
        "compare", help="say whether one checkpoint is better than another", epilog=COMPARE_EXAMPLES,
        description="Paired differences per problem, with intervals and p-values, from the rows of a ledger.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    compare.add_argument("a", metavar="A", help="what is compared with: a label, path, glob, run or hash of the ledger")
    compare.add_argument("others", nargs="+", metavar="B", help="one or several others")
    _ledger(compare)
    _choice(compare)
    compare.add_argument("--seed", type=int, metavar="N", help="samples of this seed only")
    compare.add_argument("--output", type=Path, metavar="FILE", help="the table as .csv or .md")
    card = commands.add_parser(
        "card", help="write a model card's block of results", description="Results and protocols as Markdown."
    )
    card.add_argument("checkpoint", metavar="CHECKPOINT", help="a label, path or hash of the ledger")
    _ledger(card)
    _choice(card, mixed=False)
    card.add_argument("--write", type=Path, metavar="FILE", help="put it into this card, or the README.md of a folder")
    card.add_argument("--push", metavar="OWNER/NAME", help="put it into the card of a model repository of the hub")


def _contamination_parser(commands: Any) -> None:
    contamination = commands.add_parser(
        "contamination", help="say which benchmark problems stand in training prompts",
        description="Compare training prompts with benchmarks by word n-grams. Settings are KEY=VALUE: those of data, "
        "and benchmarks, benchmarks_dir, n.",
    )  # fmt: skip
    contamination.add_argument(
        "overrides", nargs="+", metavar="KEY=VALUE", help="e.g. data=gsm8k benchmarks=[math500,aime24] n=13"
    )
    contamination.add_argument("--output", type=Path, metavar="FILE", help="every overlap, as CSV")
    contamination.add_argument("--worst", type=int, default=10, metavar="N", help="problems shown one by one (10)")


def evaluate(arguments: argparse.Namespace) -> int:
    """`rlvr evaluate`."""
    import os

    from rich.console import Console

    from rlvr.config.evaluation import compose_evaluation
    from rlvr.evaluation.evaluate import Evaluation
    from rlvr.evaluation.tracking import check_trackers
    from rlvr.evaluation.workers import start_processes

    config = compose_evaluation(arguments.overrides)
    check_trackers(config.report_to)
    if config.processes > 1:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("processes= inside torchrun or accelerate launch; leave it out: all of them take part")
        return start_processes(config.processes, ["evaluate", *arguments.overrides, "processes=1"])
    console = Console()
    evaluation = Evaluation(config, console)
    try:
        evaluation.execute(lambda tasks: _report(config, tasks, console))
    finally:
        evaluation.workers.close()
    return 0


def _report(config: Any, tasks: Any, console: Any) -> None:
    """Show what was evaluated, and pass it on to where the configuration says."""
    from dataclasses import asdict

    from rlvr.evaluation.card import model_card_block
    from rlvr.evaluation.publishing import publish
    from rlvr.evaluation.results_table import show_results
    from rlvr.evaluation.scores import read_scores
    from rlvr.evaluation.tracking import log_results

    ledger = Path(config.ledger).expanduser()
    cells = {(task.hash, task.protocol.hash) for task in tasks}
    show_results(ledger, console, only=lambda one: (one.checkpoint_hash, one.protocol_hash) in cells)
    if config.report_to:
        scores = [score for task in tasks if (score := read_scores(task.cell, task.protocol.hash)) is not None]
        log_results(scores, config.report_to, ledger / "trackers", asdict(config))
    if config.push_to_hub:
        label = tasks[-1].checkpoint.label
        console.print(publish(config.push_to_hub, label, model_card_block(ledger, tasks[-1].hash)), soft_wrap=True)


def results(arguments: argparse.Namespace) -> int:
    """`rlvr results`."""
    from rich.console import Console

    from rlvr.evaluation.results_table import show_results

    show_results(
        arguments.ledger, Console(), benchmarks=arguments.benchmarks, checkpoints=arguments.checkpoints,
        protocol=arguments.protocol, mixed=arguments.mixed, ks=arguments.k, output=arguments.output,
    )  # fmt: skip
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """`rlvr compare`."""
    from rich.console import Console

    from rlvr.evaluation.comparison_table import show_comparison

    show_comparison(
        arguments.ledger, arguments.a, arguments.others, Console(), benchmarks=arguments.benchmarks,
        protocol=arguments.protocol, mixed=arguments.mixed, seed=arguments.seed, output=arguments.output,
    )  # fmt: skip
    return 0


def card(arguments: argparse.Namespace) -> int:
    """`rlvr card`."""
    from rlvr.evaluation.card import model_card_block, write_card
    from rlvr.evaluation.publishing import publish

    block = model_card_block(
        arguments.ledger, arguments.checkpoint, benchmarks=arguments.benchmarks, protocol=arguments.protocol
    )
    if arguments.write is not None:
        print(f"written into {write_card(arguments.write, block)}")
    if arguments.push is not None:
        print(publish(arguments.push, arguments.checkpoint, block))
    if arguments.write is None and arguments.push is None:
        print(block)
    return 0


def is_ledger(folder: Path) -> bool:
    """Whether a folder is one that `rlvr evaluate` wrote."""
    return (folder / "cells").is_dir()


def grade_ledger(folder: Path, rules: dict[str, Any]) -> None:
    """Grade what a ledger holds by other rules, or by the grader as it is now; draws nothing, removes no verdict.

    Args:
        folder: of the ledger.
        rules: fields of `rlvr.rewards.policy.Policy` that are to change; without any, each protocol keeps its own.

    Raises:
        UserError: for cells that another process writes, after all others are graded.
    """
    from rlvr.evaluation.ledger import CellTaken, Ledger

    taken = []
    for cell in Ledger(folder).cells():
        try:
            with cell.claimed():
                _grade_cell(cell, rules)
        except CellTaken:
            taken.append(cell.folder)
    if taken:
        raise UserError(
            f"{len(taken)} cells are being written by another `rlvr evaluate` or `rlvr grade` and were left out, the "
            f"first is {taken[0]}; all others are graded: run this again when it has ended"
        )


def _grade_cell(cell: Any, rules: dict[str, Any]) -> None:
    """Grade a cell that this process may write, under each of its protocols with other rules."""
    from rlvr.evaluation.grading import grade_cell
    from rlvr.evaluation.protocol import regraded
    from rlvr.rewards.policy import Policy

    described = cell.describe()
    wanted = dict(regraded(protocol, rules) for protocol in described["protocols"].values())
    described["protocols"] = {**wanted, **described["protocols"]}
    cell.write_description(described)
    for name, protocol in wanted.items():
        count = grade_cell(cell, name, Policy(**protocol["grading"]))
        title = f"{described['checkpoint']} on {described['benchmark']['name']}"
        print(f"{title}: {count:,} samples graded under {name} ({protocol['name']}; grader {protocol['grader']})")
    cell.verdicts.compact()


def contamination(arguments: argparse.Namespace) -> int:
    """`rlvr contamination`."""
    from rlvr.config.compose import compose, split_settings
    from rlvr.config.convert import convert
    from rlvr.evaluation.benchmarks import benchmark_names
    from rlvr.evaluation.contamination import N
    from rlvr.evaluation.contamination_table import show_contamination

    own, rest = split_settings(arguments.overrides, ("benchmarks", "benchmarks_dir", "n"))
    names = convert(
        own.get("benchmarks", [name for name in benchmark_names() if name != "arithmetic"]), list[str], "benchmarks"
    )
    folder = own.get("benchmarks_dir")
    show_contamination(
        compose(rest).data.train(), names, None if folder is None else Path(str(folder)).expanduser(),
        n=convert(own.get("n", N), int, "n"), worst=arguments.worst, csv_path=arguments.output,
    )  # fmt: skip
    return 0


COMMANDS = {
    "evaluate": evaluate, "results": results, "compare": compare, "card": card, "contamination": contamination,
}  # fmt: skip
