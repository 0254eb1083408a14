"""Settings in Hydra's multirun grammar: what is fixed, what takes several values, and the product of those."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from rlvr.errors import UserError

SEED = "run.seed"

TAKEN = {
    "run.name": "a cell is named after its arm and seed, the sweep by --name",
    "run.resume": "a sweep goes on by itself: run the same command again",
    "run.overwrite": "remove the folder of the sweep to make it anew",
    "run.allow_changes": "a sweep compares runs that are alike but for their arms",
}
"""Settings that a sweep makes itself -> what to do instead."""


@dataclass(frozen=True)
class Axis:
    """A setting with several values.

    Attributes:
        key: as it was written, `+` or `++` before it included.
        values: as Hydra writes them, in order.
    """

    key: str
    values: list[str]


@dataclass(frozen=True)
class Interval:
    """A setting that a search may choose a number for.

    Attributes:
        key: of the setting.
        low: the least value.
        high: the greatest.
        whole: whole numbers only.
        log: search on a logarithmic scale.
    """

    key: str
    low: float
    high: float
    whole: bool
    log: bool


@dataclass(frozen=True)
class Settings:
    """Settings of a sweep, sorted.

    Attributes:
        fixed: `KEY=VALUE`, the same for every cell.
        axes: those with several values.
        intervals: those that a search chooses from.
        seeds: values of `run.seed`; None where it is not set.
        own: values of the sweep's own keys.
    """

    fixed: list[str] = field(default_factory=list)
    axes: list[Axis] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    seeds: list[int] | None = None
    own: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> set[str]:
        """What is set, without `+`."""
        fixed = [text.split("=", 1)[0] for text in self.fixed]
        several = [axis.key for axis in self.axes] + [interval.key for interval in self.intervals]
        return {key.lstrip("+~") for key in (*fixed, *several)}


def read_settings(texts: Sequence[str], own: Sequence[str] = ()) -> Settings:
    """Sort settings by Hydra's own parser; a later one of the same key takes the place of the earlier, as in Hydra.

    Args:
        texts: `KEY=VALUE`, `KEY=A,B`, `KEY=choice(A,B)`, `KEY=range(A,B,STEP)`, `KEY=interval(A,B)`,
            `KEY=tag(log,interval(A,B))`.
        own: keys that are no settings of a run, such as `ablation`.

    Raises:
        UserError: for what cannot be read, a key that a sweep sets itself, and a random or an unbounded list of values.
    """
    parsed: dict[str, Any] = {}
    for text in texts:
        override = _parse(text)
        parsed[override.get_key_element()] = override
    fixed: list[str] = []
    axes: list[Axis] = []
    intervals: list[Interval] = []
    seeds: list[int] | None = None
    values: dict[str, Any] = {}
    for key, override in parsed.items():
        name, text = key.lstrip("+~"), override.input_line
        if name in TAKEN:
            raise UserError(f"{text} is not for a sweep to set; {TAKEN[name]}")
        if name in own:
            if override.is_sweep_override():
                raise UserError(f"{text} has several values; expected one, e.g. {name}=entropy_percentile")
            values[name] = override.value()
        elif name == SEED:
            seeds = _seeds(override)
        elif override.is_interval_sweep():
            intervals.append(_interval(override))
        elif override.is_sweep_override():
            axes.append(Axis(key, _values(override)))
        else:
            fixed.append(text)
    return Settings(fixed, axes, intervals, seeds, values)


def _parse(text: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0].replace(" at '<EOF>'", "")
        raise UserError(f"{text} is not a setting ({reason}); expected KEY=VALUE or KEY=A,B,C") from None
    if not override.key_or_group or override.package is not None:
        raise UserError(f"{text} is not a setting; expected KEY=VALUE or KEY=A,B,C, e.g. run.seed=0,1,2")
    return override


def _values(override: Any) -> list[str]:
    """The values of a choice or a range."""
    from hydra.core.override_parser.types import Glob

    text, swept = override.input_line, override.value()
    if isinstance(swept, Glob):
        raise UserError(f"{text} is a glob; expected the values themselves, e.g. {override.key_or_group}=a,b")
    if getattr(swept, "shuffle", False):
        raise UserError(f"{text} is in random order, which a sweep could not repeat; leave shuffle out")
    values = list(override.sweep_string_iterator())
    again = sorted({value for value in values if values.count(value) > 1})
    if not values or again:
        raise UserError(f"{text} has {'no value' if not values else f'{again[0]} twice'}; expected different values")
    return values


def _seeds(override: Any) -> list[int]:
    """The values of `run.seed`, one or several."""
    values = _values(override) if override.is_discrete_sweep() else [str(override.value())]
    if not all(re.fullmatch(r"\d+", value) for value in values):
        raise UserError(f"{override.input_line}: a seed is a whole number of at least 0, e.g. run.seed=0,1,2")
    return [int(value) for value in values]


def _interval(override: Any) -> Interval:
    swept, key = override.value(), override.get_key_element()
    low, high, log = swept.start, swept.end, "log" in swept.tags
    unknown = swept.tags - {"log"}
    if unknown or not low < high or (log and low <= 0):
        wanted = "the only tag is log" if unknown else "expected low < high, and low above 0 on a logarithmic scale"
        raise UserError(f"{override.input_line} cannot be searched; {wanted}")
    # Hydra makes both ends floats, unless the whole is in int(...).
    return Interval(key, low, high, isinstance(low, int) and isinstance(high, int), log)


def combinations(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """The product of all values, the last axis changing fastest, as Hydra's multirun has it; key -> value.

    Without an axis: one combination that sets nothing.
    """
    return [
        dict(zip((axis.key for axis in axes), values, strict=True))
        for values in product(*(axis.values for axis in axes))
    ]


def overrides_of(combination: Mapping[str, str]) -> list[str]:
    """A combination as settings."""
    return [f"{key}={value}" for key, value in combination.items()]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """What stands for each key in names: its last part, or all of it where two keys end alike."""
    last = {key: key.lstrip("+~").rsplit(".", 1)[-1] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key.lstrip("+~") for key, name in last.items()}


def combination_name(combination: Mapping[str, str]) -> str:
    """A name that can be a folder: `keep_0.2-learning_rate_0.001`."""
    short = short_names(list(combination))
    return "-".join(f"{short[key]}_{_plain(value)}" for key, value in combination.items())


def _plain(text: str) -> str:
    """Letters, digits, dots and signs only."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_") or "_"
