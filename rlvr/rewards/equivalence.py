"""Decide by algebra whether an answer is a gold answer. For a worker process: it may hang, or eat all memory."""

from rlvr.rewards import screen
from rlvr.rewards.algebra import Formulas
from rlvr.rewards.judge import judge
from rlvr.rewards.policy import Policy


def decide(answer: str, golds: tuple[str, ...], policy: Policy) -> tuple[str, str]:
    """The (status, reason) of an answer: `correct`, `wrong` or `unparseable`. No timeout of its own.

    Args:
        answer: what was extracted.
        golds: the accepted forms, of which one has to match.
        policy: the rules; here the tolerance for decimals.
    """
    if not golds:
        return "unparseable", screen.NO_GOLD
    formulas = Formulas(policy)
    outcomes = []
    for gold in golds:
        try:
            outcome = judge(answer, gold, formulas)
        except RecursionError:
            outcome = "wrong", screen.TOO_DEEP
        if outcome[0] == "correct":
            return outcome
        outcomes.append(outcome)
    return next((outcome for outcome in outcomes if outcome[1]), ("wrong", ""))
