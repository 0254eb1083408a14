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


def add_parsers(commands: Any) -> None:
    """Add the commands to the command line."""
    evaluate = commands.add_parser(
        "evaluate", help="score checkpoints on benchmarks", epilog=EXAMPLES,
        description="Sample answers to benchmarks, grade them, and keep every sample. Settings are KEY=VALUE.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    evaluate.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, e.g. samples=16 temperature=0.6")
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
    from rlvr.evaluation.workers import start_processes

    config = compose_evaluation(arguments.overrides)
    if config.processes > 1:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("processes= inside torchrun or accelerate launch; leave it out: all of them take part")
        return start_processes(config.processes, ["evaluate", *arguments.overrides, "processes=1"])
    console = Console()
    evaluation = Evaluation(config, console)
    try:
        evaluation.execute()
    finally:
        evaluation.workers.close()
    return 0


def is_ledger(folder: Path) -> bool:
    """Whether a folder is one that `rlvr evaluate` wrote."""
    return (folder / "cells").is_dir()


def grade_ledger(folder: Path, rules: dict[str, Any]) -> None:
    """Grade what a ledger holds by other rules, or by the grader as it is now; draws nothing, removes no verdict.

    Args:
        folder: of the ledger.
        rules: fields of `rlvr.rewards.policy.Policy` that are to change; without any, each protocol keeps its own.
    """
    from rlvr.evaluation.grading import grade_cell
    from rlvr.evaluation.ledger import Ledger
    from rlvr.evaluation.protocol import regraded
    from rlvr.rewards.policy import Policy

    for cell in Ledger(folder).cells():
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


COMMANDS = {"evaluate": evaluate, "contamination": contamination}
