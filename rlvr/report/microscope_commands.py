"""The command that writes the token microscope: `rlvr microscope`."""

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  rlvr microscope runs/x                                the recorded completions of a run, every token to be looked at
  rlvr microscope runs/x --steps 1 101 --completions 40
  rlvr microscope runs/x --against builtin              beside what the policy before training says of the same tokens
  rlvr microscope runs/x --score-with runs/x/checkpoints/checkpoint-100 --against runs/y    two policies of choice
"""


def add_parsers(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "microscope", help="write a page on which every token of a run's completions can be looked at", epilog=EXAMPLES,
        description="Write one HTML file that needs no network: recorded completions, tokens coloured by entropy.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    policy = "a checkpoint, a run for its newest one, a hub id or builtin"
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder, e.g. runs/x")
    parser.add_argument("--against", metavar="POLICY", help=f"put its scores beside: {policy}")
    parser.add_argument("--steps", type=int, nargs="+", metavar="STEP", help="recorded ones; a few of all if not given")
    parser.add_argument("--completions", type=int, default=200, metavar="N", help="completions at most (200)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; RUN/microscope.html if not given")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--score-with", metavar="POLICY", help="its scores in the place of the recorded ones")
    who.add_argument("--no-scoring", action="store_true", help="leave gaps in the record open: loads no model for them")


def microscope(arguments: argparse.Namespace) -> int:
    """`rlvr microscope`."""
    from rlvr.report.microscope import build_microscope

    path = build_microscope(
        arguments.folder, steps=arguments.steps, completions=arguments.completions, against=arguments.against,
        score_with=arguments.score_with, scoring=not arguments.no_scoring, out=arguments.out, say=print,
    )  # fmt: skip
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser, it needs no network")
    if arguments.against is None:
        print(f"next: rlvr microscope {arguments.folder} --against builtin")
    else:
        print(f"next: rlvr report {arguments.folder}")
    return 0


COMMANDS = {"microscope": microscope}
