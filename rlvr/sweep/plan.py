"""What a sweep consists of: arms times seeds, and each cell's resolved configuration; kept in `sweep.yaml`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlvr.errors import UserError
from rlvr.sweep.ablation import Ablation
from rlvr.sweep.grammar import SEED, Settings, combination_name, combinations, overrides_of, short_names

FULL = ("selection.keep", ("1", "1.0"))
"""The baseline of a plain sweep over this setting: every token."""


@dataclass(frozen=True)
class Arm:
    """What is compared.

    Attributes:
        name: of the arm.
        overrides: settings that make it.
        baseline: the arm that it is compared with; None for none, its own name for a baseline.
    """

    name: str
    overrides: list[str]
    baseline: str | None = None


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        arm: its arm's name.
        seed: its `run.seed`.
    """

    name: str
    arm: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        name: of its folder.
        about: what it asks.
        ablation: where its arms are from; None for none.
        settings: of every cell.
        seeds: that each arm is run with.
        arms: what is compared.
        space: settings that a search chooses from, as they were given; empty for a sweep.
        trials: how many a search is to make; None for a sweep.
        workers: trials between two looks at the results, which later ones depend on; None for a sweep.
    """

    name: str
    about: str
    ablation: str | None
    settings: list[str]
    seeds: list[int]
    arms: list[Arm]
    space: list[str] = field(default_factory=list)
    trials: int | None = None
    workers: int | None = None

    @property
    def cells(self) -> list[Cell]:
        """All arms of the first seed, then of the next: a sweep that is stopped half-way still compares."""
        return [cell for seed in self.seeds for cell in self.cells_of(self.arms, [seed])]

    def cells_of(self, arms: Sequence[Arm], seeds: Sequence[int] | None = None) -> list[Cell]:
        """The cells of some arms."""
        wanted = self.seeds if seeds is None else seeds
        return [Cell(f"{arm.name}-seed{seed}", arm.name, seed) for seed in wanted for arm in arms]

    def overrides(self, cell: Cell, parent: Path) -> list[str]:
        """A cell's settings; later ones win.

        Args:
            cell: of this plan.
            parent: folder that the sweep's folder is in.
        """
        arm = next(arm for arm in self.arms if arm.name == cell.arm)
        place = [f"{SEED}={cell.seed}", f"run.name={cell.name}", f"run.dir={quoted(parent / self.name)}"]
        return [*self.settings, *arm.overrides, *place]


def quoted(path: Path) -> str:
    """A path as a value in Hydra's grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(str(path), Quote.single).with_quotes()


def make_plan(name: str | None, settings: Settings, ablation: Ablation | None, baseline: str | None) -> Plan:
    """The arms of an ablation, times the combinations of what has several values.

    Args:
        name: of the sweep; made from what is swept if None.
        settings: as `read_settings` gives them.
        ablation: None for the combinations alone.
        baseline: an arm's name; None for the ablation's, for keep = 1 where `selection.keep` is swept, or the first.

    Raises:
        UserError: if nothing is swept, a setting is one that the arms make, or there is no such baseline.
    """
    if ablation is None and not settings.axes and len(settings.seeds or []) < 2:
        raise UserError("nothing is swept; give ablation=NAME, or several values, e.g. selection.keep=0.1,0.2")
    if settings.intervals:
        key = settings.intervals[0].key
        raise UserError(f"{key} is an interval, which has no end of values; add --search TRIALS, or give the values")
    both = sorted(settings.keys & ablation.keys) if ablation is not None else []
    if both:
        raise UserError(
            f"{both[0]} is what the arms of the ablation differ in; leave it out, or write an ablation file"
        )
    source = settings.own.get("ablation")
    keys = [axis.key for axis in settings.axes]
    arms = _arms(combinations(settings.axes), ablation)
    if baseline is not None:
        arms = _against(arms, baseline)
    fallback = Path(str(source)).stem if source else "-".join(["sweep", *(short_names(keys).values() or ["seeds"])])
    common = [] if ablation is None else ablation.settings
    seeds = settings.seeds or (ablation.seeds if ablation is not None else [0])
    return Plan(
        name or fallback, "" if ablation is None else ablation.about, None if source is None else str(source),
        [*common, *settings.fixed], seeds, arms,
    )  # fmt: skip


def _arms(grid: list[dict[str, str]], ablation: Ablation | None) -> list[Arm]:
    """Arms with the ablation's baseline at the same values, or with the one that `_full` names."""
    names = [combination_name(values) for values in grid]
    arms = []
    for name, values in zip(names, grid, strict=True):
        if ablation is None:
            arms.append(Arm(name or "all", overrides_of(values), names[_full(grid, values)] or None))
            continue
        end = f"-{name}" if name else ""
        for own, overrides in ablation.arms.items():
            arms.append(Arm(own + end, [*overrides, *overrides_of(values)], ablation.baseline + end))
    again = {arm.name for arm in arms if [other.name for other in arms].count(arm.name) > 1}
    if again:
        raise UserError(
            f"two arms would both be called {sorted(again)[0]}; write them into an ablation file with names"
        )
    return arms


def _full(grid: list[dict[str, str]], values: Mapping[str, str]) -> int:
    """The combination with keep = 1 and else the same values; the first of all where there is none."""
    wanted = [{**values, FULL[0]: full} for full in FULL[1]]
    return next((index for index, other in enumerate(grid) if other in wanted), 0)


def _against(arms: list[Arm], baseline: str) -> list[Arm]:
    names = [arm.name for arm in arms]
    if baseline not in names:
        raise UserError(f"--baseline {baseline} is no arm; expected one of {', '.join(names)}")
    return [Arm(arm.name, arm.overrides, baseline) for arm in arms]


def write_plan(plan: Plan, path: Path) -> None:
    """Save a plan, whole or not at all."""
    import yaml

    partial = path.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(asdict(plan), sort_keys=False, width=120, allow_unicode=True), encoding="utf-8")
    partial.replace(path)


def read_plan(path: Path) -> Plan:
    """A plan that was saved.

    Raises:
        UserError: if the file is missing or holds none.
    """
    import yaml

    from rlvr.config.convert import build

    if not path.is_file():
        raise UserError(
            f"{path.parent} has no {path.name}, so it is no sweep; expected a folder that `rlvr sweep` made"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    plan: Plan = build(Plan, values, str(path))
    return plan


def flat(values: Any, path: str = "") -> dict[str, Any]:
    """Nested values by their full names."""
    if isinstance(values, Mapping) and values:
        return {k: v for name, value in values.items() for k, v in flat(value, f"{path}.{name}".lstrip(".")).items()}
    return {path: values}


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two mappings differ in, each as `key=now (was then)`."""
    old, new = flat(then), flat(now)
    return [f"{key}={new.get(key)} (was {old.get(key)})" for key in {**old, **new} if old.get(key) != new.get(key)]
