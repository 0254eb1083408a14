"""Which answers to one problem are the same, by the grader: what a majority vote counts."""

from collections.abc import Sequence

from rlvr.rewards.breaker import Limits
from rlvr.rewards.grade import grade_many


def answer_names(
    problems: Sequence[Sequence[str]], *, limits: Limits | None = None, workers: int | None = None
) -> list[dict[str, str]]:
    """The class of each answer, named by its first member.

    An answer joins the first class before it whose first member it equals; equal texts are equal answers, whatever they
    say to the grader. So answers that are added later change no name. All problems are compared in one batch per round,
    and a round settles one class of each.

    Args:
        problems: for each problem, the texts of its answers in order; repetitions allowed.
        limits: of time, for each round; None for those of rewards, see `rlvr/rewards/breaker.py`.
        workers: processes that compare at a time; None for one a usable core.

    Returns:
        For each problem, the name of each different text.
    """
    names: list[dict[str, str]] = [{} for _ in problems]
    waiting = [list(dict.fromkeys(texts)) for texts in problems]
    while any(waiting):
        pairs = [(index, text, texts[0]) for index, texts in enumerate(waiting) for text in texts[1:]]
        verdicts = grade_many(
            [f"\\boxed{{{text}}}" for _, text, _ in pairs], [first for _, _, first in pairs],
            limits=limits, workers=workers,
        )  # fmt: skip
        for index, texts in enumerate(waiting):
            names[index].update((text, text) for text in texts[:1])
        for (index, text, first), verdict in zip(pairs, verdicts, strict=True):
            if verdict.correct:
                names[index][text] = first
        waiting = [[text for text in texts if text not in names[index]] for index, texts in enumerate(waiting)]
    return names
