"""Options that the actions of `rlvr analyze` share. Imported for `rlvr --help`, so it imports nothing heavy."""

import argparse
from pathlib import Path
from typing import Any

FORMATS = ("svg", "png", "pdf")


def add_action(actions: Any, name: str, about: str, description: str) -> argparse.ArgumentParser:
    """Add an action that reads rollouts and writes a figure and a table.

    Args:
        actions: what `add_subparsers` gave.
        name: of the action.
        about: a line for the list of actions.
        description: for its own help.

    Returns:
        The parser, for further options.
    """
    action = actions.add_parser(name, help=about, description=description)
    action.add_argument(
        "places", nargs="+", metavar="RUN_OR_FILE", help="a run folder, a folder of records, or Parquet files"
    )
    action.add_argument(
        "--steps", default="all", metavar="WHICH",
        help="recorded steps of a folder: all, first, last, 120, or 100-200 (all)",
    )  # fmt: skip
    add_output(action)
    return action


def add_output(action: argparse.ArgumentParser) -> None:
    """Where results go."""
    action.add_argument(
        "--out", type=Path, metavar="DIR", help="for the figure and the CSV; RUN/analysis, or ./analysis for files"
    )
    action.add_argument("--format", choices=FORMATS, default="svg", help="of the figure (svg)")


def add_policies(action: argparse.ArgumentParser) -> None:
    """How policies score the tokens of a record."""
    action.add_argument("--temperature", type=float, default=1.0, help="divides the logits (1)")
    action.add_argument(
        "--completions", type=int, metavar="N", help="so many completions, evenly spaced; all if not given"
    )
    action.add_argument(
        "--tokens-per-pass", type=int, default=16384, metavar="N", help="through a model at once; memory only (16384)"
    )


def out_folder(arguments: argparse.Namespace) -> Path:
    """Where the results go: as given, beside a run's other files, or `analysis`."""
    if arguments.out is not None:
        return Path(arguments.out)
    first = Path(arguments.places[0]).expanduser()
    return first / "analysis" if len(arguments.places) == 1 and (first / "config.yaml").is_file() else Path("analysis")
