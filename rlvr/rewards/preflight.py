r"""Grade the golds before a run: each against itself, a copy with another value, and other ways to write it.

A gold that does not grade itself pays nobody; one that grades a copy with another value pays for wrong answers.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlvr.errors import UserError
from rlvr.rewards.breaker import Limits
from rlvr.rewards.forms import GoldLike, gold_forms
from rlvr.rewards.grade import grade_many
from rlvr.rewards.policy import Policy
from rlvr.rewards.verdict import Verdict

if TYPE_CHECKING:
    from rich.table import Table

    from rlvr.data.base import Problem

LIMIT = 0.01
"""Share of golds that may fail; a run with more does not start."""

NAMED = 10
"""Rows named in a message."""

_DIGIT = re.compile(r"[1-9]")
_CHOICE = re.compile(r"[A-Z]")
_LARGE = re.compile(r"-?\d{4,}", re.ASCII)


def other_value(form: str) -> str | None:
    """A gold with another first digit, or the next letter for a choice; None where that may be the same value.

    The first digit and not the last: it changes the value by more than any tolerance.
    """
    if _CHOICE.fullmatch(form):
        return "A" if form == "Z" else chr(ord(form) + 1)
    found = _DIGIT.search(form)
    if found is None:
        return None
    return f"{form[: found.start()]}{int(found[0]) % 9 + 1}{form[found.end() :]}"


def _separated(form: str) -> str:
    return f"{int(form):,}" if _LARGE.fullmatch(form) and len(form) < 99 else form


WAYS: dict[str, Callable[[str], str]] = {
    r"\dfrac": lambda form: form.replace(r"\frac", r"\dfrac"),
    "spaces": lambda form: f"  {form} ",
    "$ $": lambda form: f"${form}$",
    "1,000": _separated,
}
"""Other ways to write a gold in a box."""


@dataclass(frozen=True)
class Check:
    """One grading of one gold.

    Attributes:
        kind: `itself`, `itself boxed`, `other value`, or a key of `WAYS`.
        index: of the problem.
        answer: what was put in the box.
        gold: what it was compared with.
        wanted: whether it should be correct.
    """

    kind: str
    index: int
    answer: str
    gold: GoldLike
    wanted: bool = True


@dataclass
class Preflight:
    """What the golds of some problems are worth.

    Attributes:
        problems: how many there are.
        graded: checks by kind.
        failed: the checks that came out wrong, with their verdicts.
    """

    problems: int = 0
    graded: dict[str, int] = field(default_factory=dict)
    failed: list[tuple[Check, Verdict]] = field(default_factory=list)

    def rows(self, *kinds: str) -> list[int]:
        """The problems that fail a kind of check."""
        return sorted({check.index for check, _ in self.failed if check.kind in kinds})

    def unfit(self) -> list[int]:
        """The problems that do not grade themselves, or grade another value."""
        return self.rows("itself", "itself boxed", "other value")

    def table(self) -> "Table":
        """The rates, for people."""
        from rich.table import Table

        table = Table(title=f"golds of {self.problems} problems")
        table.add_column("graded against")
        for heading in ("graded", "should be", "are not", "share"):
            table.add_column(heading, justify="right")
        for kind, graded in self.graded.items():
            failed = len(self.rows(kind))
            wanted = "refused" if kind == "other value" else "correct"
            table.add_row(kind, str(graded), wanted, str(failed), f"{failed / max(graded, 1):.2%}")
        return table

    def lines(self, problems: Sequence["Problem"], most: int = NAMED) -> list[str]:
        """The failed checks, one in a line, with the row, its prompt_id and its gold."""
        failed = sorted(self.failed, key=lambda entry: entry[0].index)
        lines = [_named(check, verdict, problems[check.index]) for check, verdict in failed[:most]]
        rest = len(failed) - len(lines)
        return [*lines, f"and {rest} more"] if rest else lines


def _named(check: Check, verdict: Verdict, problem: "Problem") -> str:
    reason = f" ({verdict.reason})" if verdict.reason else ""
    return (
        f"row {check.index}, prompt_id {problem.prompt_id}, gold {_short(problem.gold)}: {check.kind}, "
        f"{_short(check.answer)} is {verdict.status}{reason}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _checks(index: int, gold: GoldLike) -> Iterable[Check]:
    forms = gold_forms(gold)
    if not forms:
        yield Check("itself", index, "", gold)
        return
    first = forms[0]
    yield Check("itself", index, first, gold)
    yield Check("itself boxed", index, first, [f"\\boxed{{{form}}}" for form in forms])
    other = other_value(first)
    if other is not None and other not in forms:
        yield Check("other value", index, other, gold, wanted=False)
    for kind, write in WAYS.items():
        answer = write(first)
        if answer != first:
            yield Check(kind, index, answer, gold)


def examine(problems: Sequence["Problem"], policy: Policy | None = None, workers: int | None = None) -> Preflight:
    """Grade the golds of problems; equal golds once.

    Args:
        problems: their prompts are not read.
        policy: the rules of grading; where the answer stands does not matter here.
        workers: processes that compare at a time.

    Returns:
        Every check that failed. A problem whose gold fails stands for all that have the same.
    """
    by_gold: dict[str, list[int]] = {}
    for index, problem in enumerate(problems):
        by_gold.setdefault(repr(problem.gold), []).append(index)
    checks = [check for same in by_gold.values() for check in _checks(same[0], problems[same[0]].gold)]
    rules = Policy(relative_tolerance=policy.relative_tolerance, longest=policy.longest) if policy else None
    verdicts = grade_many(
        [f"\\boxed{{{check.answer}}}" for check in checks], [check.gold for check in checks],
        workers=workers, policy=rules, limits=Limits(strikes=None, patience=None),
    )  # fmt: skip
    result = Preflight(len(problems))
    for check, verdict in zip(checks, verdicts, strict=True):
        same = by_gold[repr(problems[check.index].gold)]
        result.graded[check.kind] = result.graded.get(check.kind, 0) + len(same)
        if verdict.correct is not check.wanted:
            result.failed += [
                (Check(check.kind, index, check.answer, check.gold, check.wanted), verdict) for index in same
            ]
    return result


def preflight(problems: Sequence["Problem"], policy: Policy | None = None, limit: float = LIMIT) -> Preflight:
    """Grade the golds of problems, and refuse them if too many fail.

    Args:
        problems: to train or to evaluate on.
        policy: the rules of grading.
        limit: share of problems whose gold may fail to grade itself, or grade another value.

    Returns:
        What `examine` found.

    Raises:
        UserError: naming rows.
    """
    result = examine(problems, policy)
    unfit = result.unfit()
    if len(unfit) > limit * len(problems):
        raise UserError(
            f"{len(unfit)} of {len(problems)} golds ({len(unfit) / len(problems):.1%}) do not grade themselves, or "
            f"grade another value; expected at most {limit:.1%}. Mend the data; `rlvr check` names all: "
            + "; ".join(result.lines(problems, 3))
        )
    return result
