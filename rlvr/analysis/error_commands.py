"""`rlvr analyze errors`: whether entropy tells wrong answers from right ones. `sample`: answers with entropies."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from rlvr.analysis.options import add_action, out_folder
from rlvr.errors import UserError

SAMPLE_EXAMPLES = """examples:
  rlvr analyze sample model=runs/x --out answers                       16 answers to each held-out problem
  rlvr analyze sample model=runs/x benchmarks=[math500] limit=100 samples=8 --out answers
  rlvr analyze errors answers
"""


def add_parser(actions: Any) -> None:
    """Add the actions."""
    errors = add_action(
        actions, "errors", "whether entropy tells wrong answers from right ones",
        "AUROC of token entropy, semantic entropy and length for a wrong answer, with 95 % intervals over problems. "
        "Reads recorded rollouts, or the folder that `rlvr evaluate` wrote.",
    )  # fmt: skip
    errors.add_argument(
        "--by", nargs="+", default=[], metavar="COLUMN", help="tell completions apart by these, e.g. step"
    )
    errors.add_argument(
        "--levels", type=Path, metavar="FILE", help="CSV with problem_id and level, to tell apart by level"
    )
    errors.add_argument("--extract", help="where answers stand, as reward.accuracy.extract; the run's own if not given")
    errors.add_argument("--protocol", metavar="NAME", help="of a ledger: name of the protocol, or digits of its hash")
    errors.add_argument("--resamples", type=int, default=2000, metavar="N", help="of the intervals (2000)")
    errors.add_argument("--seed", type=int, default=0, metavar="N", help="of the intervals (0)")
    sample = actions.add_parser(
        "sample", help="draw answers with entropies, as a record", epilog=SAMPLE_EXAMPLES,
        description="Sample answers to benchmarks as `rlvr evaluate` does, and keep them as recorded rollouts, which "
        "all analyses read. Settings are those of `rlvr evaluate`; one model.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    sample.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. model=runs/x samples=8 limit=100")
    sample.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for the record")


def run_errors(arguments: argparse.Namespace) -> int:
    """`rlvr analyze errors`."""
    from rlvr.analysis.error_findings import of_errors
    from rlvr.analysis.errors import error_signals
    from rlvr.analysis.output import publish

    if arguments.resamples < 100:
        raise UserError(f"--resamples is {arguments.resamples}; expected at least 100")
    answers, following = _answers(arguments)
    if arguments.levels is not None:
        from rlvr.analysis.answers import with_levels

        answers = with_levels(answers, arguments.levels)
    signals = error_signals(answers, resamples=arguments.resamples, seed=arguments.seed)
    publish(of_errors(signals, answers.notes), out_folder(arguments), arguments.format, following)
    return 0


def _answers(arguments: argparse.Namespace) -> tuple[Any, str]:
    """What is to be told apart, and the next command."""
    from rlvr.analysis.answers import ledger_answers, record_answers
    from rlvr.analysis.records import find_records
    from rlvr.evaluation.commands import is_ledger

    ledgers = [place for place in arguments.places if is_ledger(Path(place).expanduser())]
    if ledgers and len(arguments.places) > 1:
        raise UserError(f"{ledgers[0]} is a ledger, which is read alone; name it without the others")
    if ledgers and (arguments.by or arguments.extract or arguments.steps != "all"):
        raise UserError(
            f"{ledgers[0]} is a ledger, which has benchmarks and levels only; leave --by, --extract and --steps out"
        )
    if ledgers:
        return ledger_answers(Path(ledgers[0]).expanduser(), arguments.protocol), "rlvr analyze sample --help"
    if arguments.protocol is not None:
        raise UserError(
            f"--protocol {arguments.protocol} chooses among the gradings of a ledger, and {arguments.places[0]} is "
            "none; leave it out"
        )
    files = find_records(arguments.places, arguments.steps)
    answers = record_answers(files, _policies(files, arguments.extract), arguments.by)
    return answers, shlex.join(["rlvr", "analyze", "tokens", *arguments.places])


def _policies(files: Any, extract: str | None) -> dict[Path, Any]:
    """How each file's answers were graded: as given, as the run's configuration says, or the default."""
    from rlvr.analysis.tokenizers import run_of
    from rlvr.config.compose import read_config
    from rlvr.rewards.accuracy import grading_policy
    from rlvr.rewards.policy import DEFAULT, Policy

    if extract is not None:
        return dict.fromkeys((file.path for file in files), Policy(extract=extract))
    runs = {file.path: run_of(file) for file in files}
    known = {
        run: grading_policy(read_config(run.config).reward.values()) for run in set(runs.values()) if run is not None
    }
    return {path: DEFAULT if run is None else known[run] for path, run in runs.items()}


def run_sample(arguments: argparse.Namespace) -> int:
    """`rlvr analyze sample`."""
    from rlvr.analysis.sampling import draw_record

    path = draw_record(arguments.overrides, arguments.out.expanduser())
    following = shlex.join(["rlvr", "analyze", "errors", arguments.out.as_posix()])
    print(f"wrote {path}\nnext: {following}")
    return 0


ACTIONS = {"errors": run_errors, "sample": run_sample}
