"""The command line: `rlvr train`. Errors a user can mend are one line and exit code 2."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rlvr.errors import UserError

TRAIN_EXAMPLES = """examples:
  rlvr train                                        the built-in task with the built-in policy
  rlvr train algorithm=dapo run.seed=1              another algorithm, another seed
  rlvr train selection=random selection.keep=0.2    the control arm
  rlvr train --from runs/x/config.yaml run.name=y   a run again, as it was
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlvr", description="Reinforcement learning with verifiable rewards, on the tokens that matter."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser(
        "train", help="train a policy", description="Train a policy. Settings are KEY=VALUE in Hydra's grammar.",
        epilog=TRAIN_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, e.g. algorithm=dapo run.steps=200")
    train.add_argument("--from", dest="source", type=Path, metavar="FILE", help="config.yaml of a run to repeat")
    return parser


def _train(arguments: argparse.Namespace) -> None:
    from rlvr.config.compose import compose, read_config
    from rlvr.train import train

    if arguments.source is None:
        train(compose(arguments.overrides))
        return
    # A run that replaced or went on with a folder is not to do so again: its own folder would be the victim.
    anew = ["run.resume=false", "run.overwrite=false"]
    train(read_config(arguments.source, [*anew, *arguments.overrides]))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments; settings may stand before and after `--from`, which argparse alone does not allow."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if any(text.startswith("-") for text in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.overrides += rest
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 for an error that the user can mend."""
    arguments = _arguments(argv)
    # OpenMP's threads spin while they wait for one another. Where a core is busy with something else they take it from
    # the thread that all wait for: ten times slower on a shared machine, and no faster on a quiet one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # DeepSpeed announces at import, on every start, that it found no GPU; `rlvr` says what it runs on by itself.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to" not in record.getMessage())
    try:
        _train(arguments)
    except UserError as error:
        print(f"rlvr: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rlvr: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
