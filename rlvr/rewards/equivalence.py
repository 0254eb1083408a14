"""Decide by algebra whether an answer is a gold answer. For a worker process: it may hang, or eat all memory."""

from rlvr.rewards.policy import Policy


def decide(answer: str, golds: tuple[str, ...], policy: Policy) -> tuple[str, str]:
    """The (status, reason) of an answer: `correct`, `wrong` or `unparseable`. No timeout of its own."""
    worst = ("wrong", "")
    for gold in golds:
        outcome = _compare(answer, gold)
        if outcome[0] == "correct":
            return outcome
        if outcome[0] != "wrong":
            worst = outcome
    return worst


def _compare(answer: str, gold: str) -> tuple[str, str]:
    # Imported here: it loads sympy, a second that a run on plain numbers need not spend.
    from math_verify import parse, verify

    parsed_gold = parse(f"\\boxed{{{gold}}}", parsing_timeout=None, raise_on_error=True)
    parsed_answer = parse(f"\\boxed{{{answer}}}", parsing_timeout=None, raise_on_error=True)
    if not parsed_gold or not parsed_answer:
        return "unparseable", f"cannot read the {'answer' if parsed_gold else 'gold answer'}"
    same = verify(parsed_gold, parsed_answer, timeout_seconds=None, raise_on_error=True)
    return ("correct", "") if same else ("wrong", "")
