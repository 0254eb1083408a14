"""A made-up path of ten tokens whose outcomes change behind the fifth, without any model."""

from collections.abc import Callable, Sequence

import numpy as np

from rlvr.analysis.forking.cells import START, CellKey, Cost
from rlvr.analysis.forking.ledger import Outcomes
from rlvr.analysis.forking.path import BasePath
from rlvr.analysis.forking.result import ForkResult, analyse
from rlvr.analysis.forking.run import Found
from rlvr.analysis.forking.settings import ForkSettings

LENGTH, FORK = 10, 4
BASE_TOKENS = list(range(100, 100 + LENGTH))
OTHER_TOKEN = 50
"""The other branch of the fork, with probability 0.6; everywhere else the base token is the only branch."""

RIGHT, WRONG = "12", "9"


def base_of(fork: int = FORK, length: int = LENGTH) -> BasePath:
    """A base path with one position that has two branches."""
    branches = [[(token, 0.95)] for token in BASE_TOKENS[:length]]
    branches[fork] = [(BASE_TOKENS[fork], 0.4), (OTHER_TOKEN, 0.6)]
    entropies = [0.01] * length
    entropies[fork] = 0.67
    return BasePath(BASE_TOKENS[:length], entropies, branches)


def outcomes_of(base: BasePath, seed: int = 0, samples: int = 30, start: int = 100) -> dict[CellKey, Outcomes]:
    """Right four times in ten up to the fork; behind it always right, on the other branch always wrong."""
    rng = np.random.default_rng(seed)

    def cell(position: int, token: int, right: np.ndarray) -> Outcomes:
        answers: list[str | None] = [RIGHT if one else WRONG for one in right]
        return Outcomes(position, token, answers, right.tolist(), [False] * len(right), [5] * len(right))

    found = [cell(START, START, rng.random(start) < 0.4)]
    for position, branches in enumerate(base.branches):
        for token, _ in branches:
            share = 0.0 if token == OTHER_TOKEN else 1.0 if position >= FORK else 0.4
            found.append(cell(position, token, rng.random(samples) < share))
    return {one.key: one for one in found}


def analysed(
    settings: ForkSettings = ForkSettings(),  # noqa: B008
    seed: int = 0,
    texts: Sequence[str] | None = None,
    token_text: Callable[[int], str] = str,
) -> ForkResult:
    """The analysis of the made-up path."""
    base = base_of()
    return analyse(base, outcomes_of(base, seed), settings, texts or list("abcdefghij"), token_text)


def found_of(texts: Sequence[str], token_text: Callable[[int], str] = str, name: str = "made up") -> Found:
    """What the command would write files from."""
    settings = ForkSettings()
    result = analysed(settings, 0, texts, token_text)
    facts = {"model": name, "question": name, "base_tokens": LENGTH, "settings": {"samples": 30, "base": "greedy"}}
    return Found(result, base_of(), list(texts), Cost(430, 1, 1), facts)
