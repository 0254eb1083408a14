"""`rlvr analyze`: what the tokens of rollouts show. Each analysis is an action of its own."""

import argparse
from collections.abc import Callable
from typing import Any

from rlvr.analysis import error_commands, policy_commands, record_commands, temperatures_commands
from rlvr.analysis.forking import commands as forking_commands

EXAMPLES = """examples:
  rlvr analyze distribution runs/x                               entropies of every recorded token
  rlvr analyze tokens runs/x --steps last                        which tokens are forks
  rlvr analyze traces runs/x                                     percentiles over training
  rlvr analyze overlap runs/x --checkpoints builtin runs/x       do the forks move
  rlvr analyze errors evaluations                                does entropy tell wrong answers
  rlvr analyze forks builtin --problem 23                        where in an answer the outcome is decided

Each prints a table and writes a figure and a CSV file. docs/analysis.md says how to read them.
"""

MODULES: tuple[Any, ...] = (
    record_commands,
    policy_commands,
    error_commands,
    forking_commands,
    temperatures_commands,
)
"""Modules with `add_parser(actions)`, which adds their actions, and `ACTIONS`, name -> function of the arguments. They
are imported for `rlvr --help`, so they import what is heavy inside their functions."""

ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    name: action for module in MODULES for name, action in module.ACTIONS.items()
}


def add_parsers(commands: Any) -> None:
    """Add `rlvr analyze` to the command line."""
    analyze = commands.add_parser(
        "analyze", help="say what the tokens of rollouts show", epilog=EXAMPLES,
        description="Analyses of token entropy, on recorded rollouts.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = analyze.add_subparsers(dest="action", required=True, metavar="ACTION")
    for module in MODULES:
        module.add_parser(actions)


def analyze(arguments: argparse.Namespace) -> int:
    """`rlvr analyze`."""
    return ACTIONS[arguments.action](arguments)


COMMANDS = {"analyze": analyze}
