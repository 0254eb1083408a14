"""`rlvr sweep`: arms times seeds, each cell a run, ending in a table."""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

from rlvr.errors import UserError
from rlvr.sweep import PLAN

__all__ = ["COMMANDS", "PLAN", "add_parsers", "show_report"]

EXAMPLES = """examples:
  rlvr sweep ablation=entropy_percentile --workers 2                     named arms of configs/ablation/, five seeds
  rlvr sweep selection.keep=0.05,0.1,0.2,0.5,1.0 run.seed=0,1,2          Hydra's multirun grammar
  rlvr sweep ablation=entropy_percentile run.steps=200 run.seed=0,1 --name long --dry-run
  rlvr sweep ablation=algorithms --slurm                                 one array job, an element a cell
  rlvr sweep --search 20 'optimizer.learning_rate=tag(log,interval(1e-4,1e-3))' selection.keep=0.1,0.2

A sweep that was stopped goes on where it was: run the same command again, or `rlvr sweep --from runs/NAME`.
"""


def add_parsers(commands: Any) -> None:
    """Add the command to the command line."""
    sweep = commands.add_parser(
        "sweep", help="run arms with several seeds, and compare them", epilog=EXAMPLES,
        description="Run every combination of settings with several values, or the arms of an ablation, and end in a "
        "table with intervals and paired differences. Settings are KEY=VALUE or KEY=A,B,C.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    sweep.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings; ablation=NAME for named arms")
    sweep.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="a sweep to go on with")
    sweep.add_argument("--name", metavar="NAME", help="of the sweep's folder below run.dir")
    sweep.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="cells at a time on this machine (1; a search goes on as before)",
    )
    sweep.add_argument("--baseline", metavar="ARM", help="the arm that the others are compared with")
    sweep.add_argument("--dry-run", action="store_true", help="print the cells, and run none")
    sweep.add_argument("--slurm", action="store_true", help="submit the cells as one array job (needs submitit)")
    sweep.add_argument("--search", type=int, metavar="N", help="make N trials with Optuna instead of every combination")


def sweep(arguments: argparse.Namespace) -> int:
    """`rlvr sweep`."""
    from rlvr.collecting import collector_rests
    from rlvr.sweep.folder import check_sweep, write_sweep

    _check(arguments)
    with collector_rests():
        plan, parent = _planned(arguments)
        plan = _counted(plan, parent, arguments)
        if arguments.dry_run:
            if arguments.source is None:
                check_sweep(plan, parent)
            _show_cells(plan, parent, arguments)
            return 0
        if arguments.source is None:
            write_sweep(plan, parent)
    return _run(plan, parent, arguments)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers is {arguments.workers}; expected at least 1")
    if arguments.search is not None and arguments.search < 1:
        raise UserError(f"--search is {arguments.search}; expected at least 1 trial")
    if arguments.search is not None and arguments.slurm:
        raise UserError("--search and --slurm cannot be combined: a trial depends on those before it")
    if arguments.source is not None and (arguments.overrides or arguments.name or arguments.baseline):
        raise UserError("--from goes on with a sweep as it was planned; leave out settings, --name and --baseline")


def _planned(arguments: argparse.Namespace) -> tuple[Any, Path]:
    """The plan, and the folder that the sweep's own is in."""
    from rlvr.sweep.ablation import read_ablation
    from rlvr.sweep.folder import SweepFolder
    from rlvr.sweep.grammar import read_settings
    from rlvr.sweep.plan import make_plan, read_plan
    from rlvr.sweep.search import search_plan

    if arguments.source is not None:
        plan, path = read_plan(SweepFolder(arguments.source).plan), arguments.source.absolute()
        if path.name != plan.name:
            raise UserError(f"{path} holds the sweep {plan.name}; give the folder that name again")
        return plan, arguments.source.parent
    settings = read_settings(arguments.overrides, own=("ablation", "run.dir"))
    parent = Path(str(settings.own.get("run.dir", "runs"))).expanduser()
    if arguments.search is not None:
        plan = search_plan(arguments.name, settings)
    else:
        name = settings.own.get("ablation")
        ablation = None if name is None else read_ablation(str(name))
        plan = make_plan(arguments.name, settings, ablation, arguments.baseline)
    if "/" in plan.name or plan.name in ("", ".", ".."):
        raise UserError(f"--name is {plan.name!r}; expected the name of a folder, and run.dir=PLACE for where it goes")
    return plan, parent


def _counted(plan: Any, parent: Path, arguments: argparse.Namespace) -> Any:
    """The plan with what a search needs to come to the same trials again, and `--workers` as it holds.

    Raises:
        UserError: for --search with a sweep, and for a search that was never told how many trials to make.
    """
    from dataclasses import replace

    from rlvr.sweep.folder import is_sweep
    from rlvr.sweep.plan import read_plan

    there = parent / plan.name
    known = read_plan(there / PLAN) if plan.space and is_sweep(there) else plan
    arguments.workers = arguments.workers or known.workers or 1
    if not plan.space:
        if arguments.search is not None:
            raise UserError(f"{there} is a sweep, which has no trials; leave out --search")
        return plan
    trials = arguments.search or plan.trials
    if trials is None:
        raise UserError(f"{there} does not say how many trials it shall have; give --search N, and --workers as before")
    return replace(plan, trials=trials, workers=arguments.workers)


def _show_cells(plan: Any, parent: Path, arguments: argparse.Namespace) -> None:
    """The cells and what they may cost."""
    from rlvr.sweep.folder import SweepFolder

    folder = SweepFolder(parent / plan.name)
    print(f"{plan.name}: {len(plan.arms)} arms, {len(plan.seeds)} seeds, {len(plan.cells)} cells in {folder.path}")
    if plan.space:
        print("\n".join(["searched:", *(f"  {text}" for text in plan.space)]))
    for arm in plan.arms:
        print(f"  {arm.name}{' (baseline)' if arm.baseline == arm.name else ''}: {' '.join(arm.overrides) or '-'}")
    print(f"every cell: {' '.join(plan.settings) or '-'}; seeds {', '.join(map(str, plan.seeds))}")
    done = [summary for cell in plan.cells if (summary := folder.summary(cell.name)) is not None]
    left = len(plan.cells) - len(done)
    if not done:
        print("cost: not known before a cell is finished; try one: rlvr train with the settings of an arm")
        return
    seconds = fmean(float(summary["train_seconds"]) for summary in done)
    minutes = left * seconds / 60 / arguments.workers
    print(
        f"cost: {len(done)} cells are finished and trained for {seconds:.0f} s each; the other {left} take about "
        f"{minutes:.0f} min with {arguments.workers} at a time, without start-up and evaluation"
    )


def _run(plan: Any, parent: Path, arguments: argparse.Namespace) -> int:
    from rlvr.sweep.folder import SweepFolder
    from rlvr.sweep.running import LocalRunner
    from rlvr.sweep.search import run_search

    folder = SweepFolder(parent / plan.name)
    if arguments.slurm:
        return _submit(plan, folder, arguments)
    runner = LocalRunner(folder, arguments.workers, plan.name, say=lambda text: print(text, flush=True))
    if plan.space:
        plan, outcome = run_search(plan, folder, plan.trials, plan.workers, runner.run)
    else:
        done = sum(folder.summary(cell.name) is not None for cell in plan.cells)
        print(f"{folder.path}: {len(plan.cells)} cells, {done} of them finished", flush=True)
        outcome = runner.run(plan.cells)
    return _end(plan, folder, outcome)


def _submit(plan: Any, folder: Any, arguments: argparse.Namespace) -> int:
    from rlvr.config.compose import read_config
    from rlvr.sweep.slurm import submit_cells

    launch = read_config(folder.config(plan.cells[0].name)).launch
    most = arguments.workers if arguments.workers > 1 else len(plan.cells)
    number = submit_cells(folder, plan.cells, plan.name, Path(launch.site), launch.processes or 1, most)
    if number:
        print(f"submitted array job {number}; what its elements print is in {folder.path / 'slurm'}")
    print(f"when cells are finished: rlvr report {folder.path}")
    return 0


def _end(plan: Any, folder: Any, outcome: Any) -> int:
    """Say how it went, and write the table."""
    import signal

    from rlvr.launch.status import INTERRUPTED, PREEMPTED

    done = [cell for cell in plan.cells if folder.summary(cell.name) is not None]
    if outcome.stopped is not None:
        print(f"stopped with {len(done)} of {len(plan.cells)} cells finished; go on: rlvr sweep --from {folder.path}")
        return INTERRUPTED if outcome.stopped == signal.SIGINT else PREEMPTED
    if done:
        result = show_report(folder.path)
        if plan.space:
            best = result.arms[0].arm
            print(f"best: {best.name}; run it with seeds that the search has not seen: {_again(plan, best)}")
    if outcome.failures:
        print(f"{len(outcome.failures)} of {len(plan.cells)} cells failed:")
        print("\n".join(f"  {failure}" for failure in outcome.failures))
        print(f"run them again, and no other: rlvr sweep --from {folder.path}")
        return 1
    return 0


def _again(plan: Any, arm: Any) -> str:
    """The command that runs an arm by itself, with new seeds, at least five."""
    import shlex

    first = max(plan.seeds) + 1
    seeds = ",".join(str(seed) for seed in range(first, first + max(5, len(plan.seeds))))
    return shlex.join(["rlvr", "sweep", *plan.settings, *arm.overrides, f"run.seed={seeds}", "--name", arm.name])


def show_report(path: Path) -> Any:
    """Write a sweep's page and tables, and show the table; returns what was read."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rlvr.sweep.report import write_report
    from rlvr.sweep.table import summary_sheet

    result, written = write_report(path)
    sheet = summary_sheet(result)
    table = Table(box=box.SIMPLE)
    for index, column in enumerate(sheet.columns):
        table.add_column(column, justify="left" if index == 0 or column in sheet.left else "right", no_wrap=index == 0)
    for row in sheet.rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for text in (*result.remarks, *sheet.notes):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for place in written:
        print(place)
    return result


COMMANDS = {"sweep": sweep}
