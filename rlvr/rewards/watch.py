"""What the verdicts of a batch say about grader and policy: a drift in them is what reward hacking looks like."""

from collections import Counter
from collections.abc import Sequence

from rlvr.rewards.verdict import Verdict

_EQUATIONS = ("a chain of equations", "an equation that is no assignment")
_TOO_BIG = ("too large to work out", "nested too deep")


def verifier_metrics(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Shares of a batch by status and by reason, and how long a verdict took, by metric; always the same keys."""
    count = max(len(verdicts), 1)
    status = Counter(verdict.status for verdict in verdicts)
    reason = Counter(verdict.reason for verdict in verdicts if not verdict.correct)
    seconds = sorted(verdict.seconds for verdict in verdicts) or [0.0]
    metrics = {
        "accuracy": status["correct"] / count,
        "verifier/timeout": status["timeout"] / count,
        "verifier/crash": status["crash"] / count,
        "verifier/no_answer": status["no_answer"] / count,
        "verifier/unparseable": status["unparseable"] / count,
        "verifier/seconds_p99": seconds[-(-99 * len(seconds) // 100) - 1],
        "verifier/reject/several": reason["several answers where one is expected"] / count,
        "verifier/reject/equations": sum(reason[text] for text in _EQUATIONS) / count,
        "verifier/reject/not_worked_out": reason["not worked out"] / count,
        "verifier/reject/too_big": sum(reason[text] for text in _TOO_BIG) / count,
        "verifier/reject/too_long": reason["too long"] / count,
        "verifier/reject/control": reason["control characters"] / count,
    }  # fmt: skip
    return metrics
