"""Searches for settings with Optuna: every trial is an arm, and what it is judged by is the arms' own number.

Trials are asked for in batches of as many as run at a time, and told in their order, so that a search that was killed
goes on to the same trials. The study is a journal in the sweep's folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from rlvr.errors import UserError
from rlvr.sweep.folder import SweepFolder, add_arms
from rlvr.sweep.grammar import Settings, read_settings
from rlvr.sweep.plan import Arm, Cell, Plan
from rlvr.sweep.results import AFTER
from rlvr.sweep.running import Outcome

JOURNAL = "search.journal"

SEED = 20_240_229
"""Of the sampler: trial i draws with this plus i, whatever was asked before."""

Run = Callable[[Sequence[Cell]], Outcome]


def search_plan(name: str | None, settings: Settings) -> Plan:
    """The plan of a search, without its arms.

    Args:
        name: of the sweep; made from what is searched if None.
        settings: intervals and lists of values are searched, the rest is fixed.

    Raises:
        UserError: if nothing is to be searched, or an ablation is given.
    """
    from rlvr.sweep.grammar import short_names

    if settings.own.get("ablation") is not None:
        raise UserError("an ablation has named arms and is not searched; leave out --search or ablation")
    keys = [one.key for one in settings.intervals] + [axis.key for axis in settings.axes]
    if not keys:
        raise UserError(
            "--search has nothing to choose; give an interval, e.g. 'optimizer.learning_rate=interval(1e-4,1e-3)'"
        )
    space = [_interval_text(one) for one in settings.intervals]
    space += [
        f"{axis.key}={','.join(axis.values)}" if len(axis.values) > 1 else f"{axis.key}=choice({axis.values[0]})"
        for axis in settings.axes
    ]
    about = "A search for settings; a trial is judged by its held-out accuracy after the last step."
    fallback = "-".join(["search", *short_names(keys).values()])
    return Plan(name or fallback, about, None, settings.fixed, settings.seeds or [0], [], space)


def _interval_text(one: Any) -> str:
    text = f"interval({one.low!r},{one.high!r})"
    text = f"int({text})" if one.whole else text
    return f"{one.key}=tag(log,{text})" if one.log else f"{one.key}={text}"


def run_search(plan: Plan, folder: SweepFolder, trials: int, workers: int, run: Run) -> tuple[Plan, Outcome]:
    """Make trials until there are as many as wanted; those of an earlier start stay.

    A trial whose cell fails is not told, and run again by the next start.

    Args:
        plan: of the search, without its arms.
        folder: of it.
        trials: in all.
        workers: trials between two looks at the results.
        run: runs cells that are not finished.

    Returns:
        The plan with its arms, and how the cells went.

    Raises:
        UserError: if Optuna is not there.
    """
    study, settings = _study(folder, plan.name), read_settings(plan.space)
    outcome = Outcome()
    for start in range(0, trials, workers):
        end = min(start + workers, trials)
        while len(_live(study, settings)) < end:
            _ask(study, settings)
        live = _live(study, settings)
        plan = replace(plan, arms=[_arm(index, one.params) for index, one in enumerate(live)])
        cells = plan.cells_of(plan.arms[start:end])
        add_arms(plan, folder, cells)
        went = run(cells)
        outcome.failures += went.failures
        outcome.stopped = went.stopped
        for trial, arm in list(zip(live, plan.arms, strict=True))[start:end]:
            _tell(study, trial, _value(folder, plan.cells_of([arm])))
        if outcome.stopped is not None:
            break
    return plan, outcome


def _study(folder: SweepFolder, name: str) -> Any:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise UserError("--search needs the package optuna; install it: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder.path / JOURNAL)))
    return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)


def _distributions(settings: Settings) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {axis.key: CategoricalDistribution(axis.values) for axis in settings.axes}
    for one in settings.intervals:
        kind: Any = IntDistribution if one.whole else FloatDistribution
        found[one.key] = kind(one.low, one.high, log=one.log)
    return found


def _live(study: Any, settings: Settings) -> list[Any]:
    """Trials that were asked for in whole, in order: a kill may leave one without all of its values."""
    names = _distributions(settings).keys()
    return [trial for trial in study.get_trials(deepcopy=False) if trial.params.keys() >= names]


def _ask(study: Any, settings: Settings) -> None:
    import optuna

    study.sampler = optuna.samplers.TPESampler(seed=SEED + len(_live(study, settings)))
    study.ask(_distributions(settings))


def _arm(index: int, values: dict[str, Any]) -> Arm:
    return Arm(f"trial_{index:03d}", [f"{key}={value}" for key, value in sorted(values.items())])


def _value(folder: SweepFolder, cells: Sequence[Cell]) -> float | None:
    """The mean over seeds of what arms are compared by; None where a cell is not finished."""
    summaries = [folder.summary(cell.name) for cell in cells]
    if any(summary is None for summary in summaries):
        return None
    values = [summary.get(AFTER) for summary in summaries if summary is not None]
    if any(value is None for value in values):
        raise UserError(f"{cells[0].name} has no {AFTER}: nothing is held out, so there is nothing to judge it by")
    return fmean(float(value) for value in values if value is not None)


def _tell(study: Any, trial: Any, value: float | None) -> None:
    from optuna.trial import TrialState

    if value is not None and trial.state == TrialState.RUNNING:
        study.tell(trial.number, value)
