"""What the verdicts of a batch say about grader and policy: a drift in them is what reward hacking looks like."""

from collections import Counter
from collections.abc import Sequence

from rlvr.rewards import extract, screen
from rlvr.rewards.verdict import Verdict

_EQUATIONS = (screen.CHAIN, screen.EQUATION)
_TOO_BIG = (screen.TOO_BIG, screen.TOO_DEEP)


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
        "verifier/reject/several": reason[screen.SEVERAL] / count,
        "verifier/reject/equations": sum(reason[text] for text in _EQUATIONS) / count,
        "verifier/reject/not_worked_out": reason[screen.UNEVALUATED] / count,
        "verifier/reject/too_big": sum(reason[text] for text in _TOO_BIG) / count,
        "verifier/reject/too_long": reason[extract.TOO_LONG] / count,
        "verifier/reject/control": reason[extract.CONTROL] / count,
    }  # fmt: skip
    return metrics
