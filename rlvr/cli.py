"""The command line. Errors a user can mend are one line and exit code 2."""

import argparse
import atexit
import gc
import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr import recipes
from rlvr.analysis import commands as analysis
from rlvr.collecting import collector_rests
from rlvr.errors import UserError
from rlvr.evaluation import commands as evaluation
from rlvr.evaluation import prompt_commands as prompts
from rlvr.report import microscope_commands as microscope
from rlvr.sweep import commands as sweeps

TRAIN_EXAMPLES = """examples:
  rlvr train                                        the built-in task with the built-in policy
  rlvr train algorithm=dapo run.seed=1              another algorithm, another seed
  rlvr train selection=random selection.keep=0.2    the control arm
  rlvr train --from runs/x/config.yaml run.name=y   a run again, as it was
  rlvr train launch.processes=8 deepspeed=zero2     on eight GPUs of this machine
  rlvr train launch=slurm launch.nodes=4 launch.processes=8    as a Slurm job on four machines
"""


GRADE_EXAMPLES = """examples:
  rlvr grade outputs.jsonl                                 rows {"id", "completion", "gold", optional "task"}
  rlvr grade outputs.parquet --gold-column answer          another column for the gold
  rlvr grade outputs.jsonl --extract last_number           the last number instead of the last box
  rlvr grade evaluations --extract answer_line             what `rlvr evaluate` has kept, by other rules
"""


RESUME_EXAMPLES = """examples:
  rlvr resume-check evaluation.problems=8
  rlvr resume-check recipe=dapo/qwen2.5-32b launch.processes=8 --steps 4
"""


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, e.g. algorithm=dapo run.steps=200")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="config.yaml of a run to repeat")


def _grade_options(commands: Any) -> None:
    grade = commands.add_parser(
        "grade", help="grade a file of completions", epilog=GRADE_EXAMPLES,
        description="Grade each row of a JSON Lines or Parquet file. Goes on where an earlier start was stopped.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    grade.add_argument("file", type=Path, metavar="FILE", help="rows with a completion and a gold, or a ledger")
    grade.add_argument("--output", type=Path, metavar="FILE", help="graded rows; FILE.graded.jsonl if not given")
    for name in ("completion", "gold", "task"):
        grade.add_argument(f"--{name}-column", metavar="NAME", help=f"where the {name} stands ({name})")
    grade.add_argument("--workers", type=int, metavar="N", help="processes that compare; one a core if not given")
    grade.add_argument("--extract", help="boxed, answer_line or last_number (boxed)")
    grade.add_argument("--think", help="after, required or ignore (after)")
    grade.add_argument("--tolerance", type=float, metavar="SHARE", help="a decimal this near stands for a value")
    grade.add_argument("--overwrite", action="store_true", help="grade all rows anew")


def _training(commands: Any) -> None:
    train = commands.add_parser(
        "train", help="train a policy", description="Train a policy. Settings are KEY=VALUE in Hydra's grammar.",
        epilog=TRAIN_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _settings(train)
    plan = commands.add_parser("plan", help="say what a run would do and need, without starting it")
    _settings(plan)
    plan.add_argument("--processes", type=int, default=None, metavar="N", help="processes the run would have")
    plan.add_argument("--prompt-tokens", type=int, metavar="N", help="prompt length for the memory estimate")
    check = commands.add_parser("check", help="grade the golds of a data set against themselves, without a model")
    _settings(check)
    check.add_argument("--limit", type=float, default=0.01, metavar="SHARE", help="golds that may fail (0.01)")


def _about_runs(commands: Any) -> None:
    report = commands.add_parser(
        "report", help="write report.html of a run, or the table of a sweep, from its folder alone"
    )
    report.add_argument("folder", type=Path, metavar="RUN", help="a run folder, e.g. runs/x, or a sweep's")
    export = commands.add_parser(
        "export", help="write the policy of a checkpoint as a folder that from_pretrained loads",
        description="Verify a checkpoint and write its policy: weights in one piece, configuration, tokenizer.",
    )  # fmt: skip
    export.add_argument("checkpoint", type=Path, help="a checkpoint, or a run folder for its newest whole one")
    export.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    resume = commands.add_parser(
        "resume-check", help="prove that a run of yours resumes exactly: 2N steps equal N + N",
        description="Train 2N steps, go on from the checkpoint at step N in new processes, compare the ends bit by "
        "bit, and name the first number that differs.", epilog=RESUME_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _settings(resume)
    resume.add_argument("--steps", type=int, metavar="N", help="optimizer steps of each half")
    resume.add_argument("--overwrite", action="store_true", help="replace the folder of an earlier check")
    doctor = commands.add_parser("doctor", help="say what is installed and what is missing, for a bug report")
    doctor.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlvr", description="Reinforcement learning with verifiable rewards, on the tokens that matter."
    )
    parser.add_argument("--version", action="version", version=f"rlvr {importlib.metadata.version('rlvr')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _training(commands)
    _grade_options(commands)
    evaluation.add_parsers(commands)
    prompts.add_parsers(commands)
    microscope.add_parsers(commands)
    recipes.add_parsers(commands)
    analysis.add_parsers(commands)
    sweeps.add_parsers(commands)
    _about_runs(commands)
    return parser


def _config(arguments: argparse.Namespace) -> Any:
    with collector_rests():
        from rlvr.config.compose import compose, read_config

        if arguments.source is None:
            return compose(arguments.overrides)
        # A run that replaced or went on with a folder is not to do so again: its own folder would be the victim.
        return read_config(arguments.source, ["run.resume=false", "run.overwrite=false", *arguments.overrides])


def _train(arguments: argparse.Namespace) -> int:
    from rlvr.launch.start import train_or_launch
    from rlvr.launch.status import PREEMPTED
    from rlvr.preemption import Preempted, caught

    try:
        with caught():
            return train_or_launch(lambda: _config(arguments))
    except Preempted as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"rlvr: {stopped.message}", file=sys.stderr)
        return PREEMPTED


def _plan(arguments: argparse.Namespace) -> int:
    from rlvr.plan import show_plan

    show_plan(_config(arguments), arguments.processes, arguments.prompt_tokens)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from rlvr.rewards.graded_table import show_checked

    config = _config(arguments)
    show_checked({"training": config.data.train(), "held out": config.data.heldout()}, config.reward, arguments.limit)
    return 0


def _grade(arguments: argparse.Namespace) -> int:
    from rlvr.rewards.graded_table import show_graded
    from rlvr.rewards.policy import Policy
    from rlvr.rewards.rows import Columns

    given = {"extract": arguments.extract, "think": arguments.think, "relative_tolerance": arguments.tolerance}
    rules = {name: value for name, value in given.items() if value is not None}
    if evaluation.is_ledger(arguments.file):
        evaluation.grade_ledger(arguments.file, rules)
        return 0
    names = {name: getattr(arguments, f"{name}_column") for name in ("completion", "gold", "task")}
    columns = Columns(**{k: name for k, name in names.items() if name}, task_required=bool(names["task"]))
    show_graded(arguments.file, arguments.output, columns, Policy(**rules), arguments.workers, arguments.overwrite)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from rlvr.report.page import build_report

    if (arguments.folder / sweeps.PLAN).is_file():
        sweeps.show_report(arguments.folder)
        return 0
    print(build_report(arguments.folder))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from rlvr.export import run

    run(arguments.checkpoint, arguments.out)
    return 0


def _resume_check(arguments: argparse.Namespace) -> int:
    from rlvr.resume_check import check

    print(check(_config(arguments), arguments.steps, arguments.overwrite))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from rlvr.doctor import examine

    lines, problems = examine(arguments.runs)
    print("\n".join([*lines, *(f"PROBLEM: {problem}" for problem in problems)]))
    return 1 if problems else 0


COMMANDS = {
    "train": _train, "plan": _plan, "check": _check, "grade": _grade, "report": _report, "export": _export,
    "resume-check": _resume_check, "doctor": _doctor, **evaluation.COMMANDS, **prompts.COMMANDS, **recipes.COMMANDS,
    **microscope.COMMANDS, **analysis.COMMANDS, **sweeps.COMMANDS,
}  # fmt: skip


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments; settings may stand before and after `--from`, which argparse alone does not allow."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if any(text.startswith("-") for text in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and not hasattr(arguments, "overrides"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 for an error that the user can mend, 75 to be resumed."""
    # Python would look for cycles among half a million objects before it ends: seconds that a scheduler may not give.
    atexit.register(gc.freeze)
    arguments = _arguments(argv)
    # OpenMP's threads spin while they wait for one another, by default so long that on a shared machine they take the
    # core from the thread that all wait for: ten times slower. Without spinning every small operation pays for a
    # wake-up: 1.6 times slower on a quiet one.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # DeepSpeed announces at import, on every start, that it found no GPU; `rlvr` says what it runs on by itself.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to" not in record.getMessage())
    try:
        code = COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who read our output, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"rlvr: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rlvr: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
