"""A reward of your own, by import path."""

import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored

_FORM = "package.module:name"


def load(path: str) -> Any:
    """What `package.module:name` stands for; modules of the working directory are found too.

    Raises:
        UserError: if there is no such module or name.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise UserError(f"reward.custom.path is {path!r}; expected {_FORM}, e.g. my_rewards:brevity")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that it shadows nothing
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"reward.custom.path={path}: the module cannot be imported ({error}); expected {_FORM}, found from the "
            "working directory or PYTHONPATH"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            public = ", ".join(sorted(entry for entry in vars(found) if not entry.startswith("_"))[:8])
            raise UserError(f"reward.custom.path={path}: {module} has no {part}; it has {public or 'no names'}")
        found = getattr(found, part)
    return found


@variant("reward", "custom")
@dataclass
class Custom(Reward):
    """Added with `+reward.custom={path: "my_rewards:brevity", weight: 0.5}`.

    The path names a function, `f(completions, golds) -> list of a number or None a completion`, or a `Reward` class or
    object, which sees lengths and truncation too.

    Attributes:
        path: `package.module:name` of a function `f(completions, golds, **options)` that gives a number or None for
            each completion, or of a `Reward` class.
        options: keywords for the class, or for the function at every call.
    """

    path: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    pays: Callable[..., Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = load(self.path) if self.path else _nothing
        try:
            self.pays = found(**self.options) if isinstance(found, type) else found
        except TypeError as error:
            raise UserError(f"reward.custom.options do not fit {self.path}: {error}") from None
        if not callable(self.pays):
            raise UserError(
                f"reward.custom.path={self.path} is a {type(found).__name__}; expected a function or a Reward"
            )

    def __call__(self, batch: Scored) -> list[float | None]:
        if isinstance(self.pays, Reward):
            values = self.pays(batch)
        else:
            values = self.pays(batch.completions, list(batch.golds), **self.options)
        return self._checked(values, len(batch.completions))

    @property
    def two_sided(self) -> bool:
        """As the reward behind it says; of a function nobody knows, and it is taken at its word."""
        return getattr(self.pays, "two_sided", True)

    @property
    def verdicts(self) -> Any:
        """Those of the reward behind it, if it grades."""
        return getattr(self.pays, "verdicts", None)

    def _checked(self, values: Any, count: int) -> list[float | None]:
        """The values as numbers.

        Raises:
            UserError: unless there is a finite number or None for each completion.
        """
        values = list(values)
        if len(values) != count:
            raise UserError(f"{self.path} gave {len(values)} rewards for {count} completions; expected one for each")
        for index, value in enumerate(values):
            fits = value is None or (isinstance(value, int | float) and math.isfinite(value))
            if not fits:
                raise UserError(f"{self.path} gave {value!r} for completion {index}; expected a finite number or None")
        return [None if value is None else float(value) for value in values]


def _nothing(*_: Any, **__: Any) -> Any:
    raise UserError(f"reward.custom.path is empty; set it to {_FORM}, e.g. my_rewards:brevity")
