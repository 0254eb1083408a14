"""Grade a completion against a gold answer: the function that both rewards and evaluation call."""

import time
from collections.abc import Sequence

from rlvr.rewards.breaker import Limits
from rlvr.rewards.cache import Cache
from rlvr.rewards.exact import decide_fast
from rlvr.rewards.extract import extract
from rlvr.rewards.forms import GoldLike, gold_forms
from rlvr.rewards.policy import DEFAULT, Policy
from rlvr.rewards.pool import SHARED
from rlvr.rewards.protocol import Outcome, Task
from rlvr.rewards.verdict import Verdict

KNOWN = Cache()
"""Outcomes of earlier comparisons."""


def grade(
    completion: str, gold: GoldLike, *, truncated: bool = False, policy: Policy | None = None, deadline: float = 2.0
) -> Verdict:
    """Compare the answer of a completion with the gold answer.

    Equal texts, integers, decimals and simple fractions are decided at once. Everything else is compared by math-verify
    in a process that can be killed, so no answer can hang or fill this one. Works in any thread.

    Args:
        completion: the whole text that was sampled.
        gold: the right answer, or several of which one has to match; with or without `$...$` or `\\boxed{}`.
        truncated: the completion was cut at the length limit: wrong, unless the policy says otherwise.
        policy: where the answer stands and how strictly it is compared; None for the default.
        deadline: wall seconds that the comparison may take.

    Returns:
        The verdict; an answer that cannot be compared is not correct, and says why.
    """
    limits = Limits(deadline, strikes=None, patience=None)
    return grade_many([completion], [gold], [truncated], workers=1, policy=policy, limits=limits)[0]


def grade_many(
    completions: Sequence[str],
    golds: Sequence[GoldLike],
    truncated: Sequence[bool] | None = None,
    *,
    workers: int | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
) -> list[Verdict]:
    """Grade each completion against its gold. Equal answers to equal golds are compared once.

    Args:
        completions: whole texts.
        golds: one per completion, each as for `grade`.
        truncated: which completions were cut; None for none.
        workers: processes that compare at a time; None for one a usable core. No verdict depends on it.
        policy: as for `grade`.
        limits: of time, for one answer and for all; see `rlvr/rewards/breaker.py`.

    Returns:
        The verdicts, in order.

    Raises:
        ValueError: if the lengths differ.
    """
    policy = policy or DEFAULT
    cut = [False] * len(completions) if truncated is None else truncated
    drafts = [_draft(*row, policy) for row in zip(completions, golds, cut, strict=True)]
    tasks = list(dict.fromkeys(draft.task for draft in drafts if draft.task is not None))
    outcomes = dict(zip(tasks, SHARED.compare(tasks, policy, workers=workers, limits=limits), strict=True))
    for task, outcome in outcomes.items():
        KNOWN.put((task, policy), outcome)
    verdicts, paid = [], set()
    for draft in drafts:
        outcome, seconds = draft.outcome, draft.seconds
        if draft.task is not None:
            outcome = outcomes[draft.task]
            seconds += 0.0 if draft.task in paid else outcome.seconds  # the first of equal rows took the time
            paid.add(draft.task)
        correct = outcome.status == "correct"
        verdicts.append(Verdict(correct, draft.extracted, outcome.status, outcome.reason, seconds))
    return verdicts


class _Draft:
    """What is known about a row before workers are asked."""

    __slots__ = ("extracted", "outcome", "seconds", "task")

    def __init__(self, extracted: str | None, outcome: Outcome, task: Task | None, seconds: float) -> None:
        self.extracted, self.outcome, self.task, self.seconds = extracted, outcome, task, seconds


def _draft(completion: str, gold: GoldLike, truncated: bool, policy: Policy) -> _Draft:
    started = time.perf_counter()
    found = extract(completion, policy)
    outcome, task = Outcome("wrong", "truncated"), None
    if not (truncated and policy.truncated_wrong):
        outcome, task = _decide(found.text, found.status, found.reason, gold, policy)
    return _Draft(found.text, outcome, task, time.perf_counter() - started)


def _decide(text: str | None, status: str, reason: str, gold: GoldLike, policy: Policy) -> tuple[Outcome, Task | None]:
    """The outcome where it is known here; else a task for a worker."""
    if status or text is None:
        return Outcome(status or "no_answer", reason), None
    golds = gold_forms(gold)
    decided = decide_fast(text, golds)
    if decided is not None:
        return Outcome(*decided), None
    task = Task(text, golds)
    known = KNOWN.get((task, policy))
    return (Outcome("wrong"), task) if known is None else (Outcome(known.status, known.reason), None)
