"""Measured pass rates: how often a model solves each training prompt, and which problems are kept for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rlvr.data.base import Problem
from rlvr.errors import UserError

COLUMNS = ("prompt_id", "n", "correct")
"""What a file of pass rates has at least, a row a prompt; `rlvr passrate` writes more."""


class Rate(NamedTuple):
    """How often a prompt was solved.

    Attributes:
        n: answers sampled, at least 1.
        correct: right ones among them.
    """

    n: int
    correct: int

    @property
    def share(self) -> float:
        """correct / n."""
        return self.correct / self.n


def read_rates(path: str | Path, setting: str) -> dict[str, Rate]:
    """The pass rates of a file by `Problem.prompt_id`; a prompt without a sample (n = 0) has none.

    Args:
        path: a Parquet file with the columns `COLUMNS`.
        setting: the key to name in messages, e.g. `data.filter.file`.

    Raises:
        UserError: if it is no such file, or its numbers contradict each other.
    """
    import pyarrow.parquet
    from pyarrow import ArrowException

    file = Path(path).expanduser()
    try:
        found = pyarrow.parquet.read_schema(file).names
        missing = [name for name in COLUMNS if name not in found]
        if missing:
            raise UserError(
                f"{setting}={path} has the columns {', '.join(found)}; expected {', '.join(COLUMNS)}, as `rlvr "
                "passrate` writes them"
            )
        columns = pyarrow.parquet.read_table(file, columns=list(COLUMNS)).to_pydict()
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{setting}={path} cannot be read ({reason}); expected the Parquet file that `rlvr passrate` writes"
        ) from None
    rates: dict[str, Rate] = {}
    for name, n, correct in zip(*(columns[column] for column in COLUMNS), strict=True):
        if not isinstance(n, int) or not isinstance(correct, int) or not 0 <= correct <= n or name in rates:
            wrong = "stands there twice" if name in rates else f"has correct={correct} and n={n}"
            raise UserError(f"{setting}={path}: prompt {name} {wrong}; expected a row a prompt, with 0 <= correct <= n")
        rates[name] = Rate(n, correct)
    return {name: rate for name, rate in rates.items() if rate.n}


@dataclass
class Filter:
    """Training problems by their pass rate, measured with `rlvr passrate`. Held-out problems stay as they are.

    It comes after every other setting of the data, and knows a prompt by its whole text: measure with the settings that
    one trains with. Prompts without a measured rate are left out and counted.

    Attributes:
        file: the Parquet file that `rlvr passrate` wrote; None for no filter.
        pass_rate: the lowest and the highest share of right answers that are kept, both included, e.g. [0.2,0.8].
    """

    file: str | None = None
    pass_rate: list[float] | None = None

    def __post_init__(self) -> None:
        bounds = self.pass_rate
        if bounds is not None and not (len(bounds) == 2 and 0 <= bounds[0] <= bounds[1] <= 1):
            raise UserError(
                f"data.filter.pass_rate is {bounds}; expected the lowest and the highest share, e.g. [0.2,0.8]"
            )
        if (self.file is None) != (bounds is None):
            given, lacks = ("pass_rate", "file") if self.file is None else ("file", "pass_rate")
            raise UserError(
                f"data.filter.{given} is set without data.filter.{lacks}; expected both, e.g. "
                "data.filter.file=rates.parquet data.filter.pass_rate=[0.2,0.8]"
            )

    def keep(self, problems: Sequence[Problem]) -> tuple[list[Problem], list[str]]:
        """The problems whose rate lies in the interval.

        Args:
            problems: to train on.

        Returns:
            Those kept, in order; and what people should know: how many were left out, and why.

        Raises:
            UserError: if the file cannot be used, or no problem is left.
        """
        if self.file is None or self.pass_rate is None:
            return list(problems), []
        rates, (lowest, highest) = read_rates(self.file, "data.filter.file"), self.pass_rate
        measured = [problem for problem in problems if problem.prompt_id in rates]
        kept = [problem for problem in measured if lowest <= rates[problem.prompt_id].share <= highest]
        if not measured:
            raise UserError(
                f"data.filter.file={self.file} holds {len(rates)} pass rates, but none of the {len(problems)} training "
                "prompts; run `rlvr passrate` with the data settings of this run (data.template is part of a prompt)"
            )
        if not kept:
            lower = sum(rates[problem.prompt_id].share < lowest for problem in measured)
            raise UserError(
                f"no training problem has a pass rate in data.filter.pass_rate=[{lowest:g},{highest:g}]: of "
                f"{len(measured)} measured ones {lower} lie below, {len(measured) - lower} above; widen it"
            )
        notes = [
            f"{len(kept)} of {len(measured)} measured training problems have a pass rate in [{lowest:g}, {highest:g}]"
        ]
        if len(measured) < len(problems):
            notes.append(
                f"{len(problems) - len(measured)} of {len(problems)} training problems have no rate in "
                f"data.filter.file={self.file} and were left out"
            )
        return kept, notes
