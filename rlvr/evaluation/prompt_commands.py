"""The commands that look at training prompts: `rlvr passrate` and `rlvr select-prompt`."""

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  rlvr passrate data=gsm8k model=Qwen/Qwen3-0.6B k=16 output=rates.parquet
  rlvr train data=gsm8k data.filter.file=rates.parquet data.filter.pass_rate=[0.2,0.8]
  rlvr select-prompt rates.parquet --top 1 --output one.jsonl
"""


def add_parsers(commands: Any) -> None:
    """Add the commands to the command line."""
    rates = commands.add_parser(
        "passrate", help="measure how often each training prompt is solved", epilog=EXAMPLES,
        description="Sample k answers to every training prompt and write prompt_id, n and correct as Parquet. Settings "
        "are those of data, k, output, and those of `rlvr evaluate`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    rates.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. data=gsm8k k=16 output=rates.parquet")
    select = commands.add_parser(
        "select-prompt", help="choose the prompts whose answers vary most",
        description="The prompts with the largest variance of correctness, as one-shot EM chooses its one.",
    )  # fmt: skip
    select.add_argument("rates", type=Path, metavar="RATES", help="what `rlvr passrate` wrote")
    select.add_argument("--top", type=int, default=1, metavar="N", help="prompts (1)")
    select.add_argument("--data", nargs="+", default=[], metavar="KEY=VALUE", help="among these problems only")
    select.add_argument("--output", type=Path, metavar="FILE", help="a .jsonl for data=files data.train_files=FILE")


def passrate(arguments: argparse.Namespace) -> int:
    """`rlvr passrate`."""
    from rich.console import Console

    from rlvr.evaluation import passrate as measuring

    return measuring.passrate(arguments.overrides, Console())


def select_prompt(arguments: argparse.Namespace) -> int:
    """`rlvr select-prompt`."""
    from rich.console import Console

    from rlvr.evaluation import prompt_choice

    prompt_choice.select_prompt(arguments.rates, arguments.top, arguments.output, arguments.data, Console())
    return 0


COMMANDS = {"passrate": passrate, "select-prompt": select_prompt}
