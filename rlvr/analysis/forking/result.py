"""From outcomes to forks: distributions along the path, their movement, and the tokens that decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rlvr.analysis.forking.cells import START, CellKey, looked_at
from rlvr.analysis.forking.change_points import Changes, Drawn, find_changes
from rlvr.analysis.forking.ledger import Outcomes
from rlvr.analysis.forking.outcomes import (
    branch_weights,
    drift,
    expected_distance,
    fold_rare,
    hazard,
    histogram,
    mixture,
    survival,
    total_variation,
)
from rlvr.analysis.forking.path import BasePath
from rlvr.analysis.forking.settings import ForkSettings
from rlvr.evaluation.grading import answer_classes

CUT, NO_ANSWER = "(cut)", "(no answer)"


@dataclass(frozen=True)
class BranchOutcomes:
    """One branch: token id, text, probability before scaling, and (K,) shares of the outcomes after it."""

    token: int
    text: str
    prob: float
    outcomes: np.ndarray


@dataclass(frozen=True)
class PositionOutcomes:
    """One position that was looked at.

    Attributes:
        position: from 0.
        text: of the base token.
        entropy: nats at temperature 1.
        branches: the base token first.
        outcomes: o_t, (K,).
        drift: y_t.
        tv: to the position looked at before.
        hazard: of this position.
        distance: expected distance, the hazard without a threshold.
        survival: of all positions looked at, up to this one.
    """

    position: int
    text: str
    entropy: float
    branches: list[BranchOutcomes]
    outcomes: np.ndarray
    drift: float
    tv: float
    hazard: float
    distance: float
    survival: float

    @property
    def mass(self) -> float:
        """Probability of all branches together; the rest was not looked at."""
        return sum(branch.prob for branch in self.branches)


@dataclass(frozen=True)
class Fork:
    """A place where the outcomes change.

    Attributes:
        first: the first token that may have done it: that of the position looked at before the change.
        last: the last such token; equal to `first` with stride 1.
        text: of these tokens.
        gain: deviance that the change point saves.
        before: (K,) outcomes of the segment that ends here, each position alike.
        after: (K,) of the segment that begins here.
    """

    first: int
    last: int
    text: str
    gain: float
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class ForkResult:
    """What was found on one path.

    Attributes:
        categories: K names.
        start: o_0, (K,).
        positions: in order.
        forks: in order.
        changes: the change points that the forks come from.
        right: name of the category of right answers; None if none was drawn.
    """

    categories: list[str]
    start: np.ndarray
    positions: list[PositionOutcomes]
    forks: list[Fork]
    changes: Changes
    right: str | None


def outcome_names(found: Sequence[Outcomes]) -> tuple[list[list[str]], str | None]:
    """The category of each outcome, before rare ones are folded: answers that the grader takes for equal are one.

    Args:
        found: cells, in a fixed order: a category is named by its first answer.

    Returns:
        Names for each cell; and the name of the right answers, if there are any.
    """
    flat = [
        {"extracted": answer, "correct": right, "votes": not cut}
        for one in found for answer, right, cut in zip(one.answers, one.right, one.cut, strict=True)
    ]  # fmt: skip
    names = [
        CUT if not row["votes"] and not row["correct"] else NO_ANSWER if name is None else name
        for row, name in zip(flat, answer_classes([flat])[0], strict=True)
    ]
    right = next((name for row, name in zip(flat, names, strict=True) if row["correct"]), None)
    ends = np.cumsum([len(one.answers) for one in found]).tolist()
    return [names[end - len(one.answers) : end] for one, end in zip(found, ends, strict=True)], right


def analyse(
    base: BasePath,
    known: Mapping[CellKey, Outcomes],
    settings: ForkSettings,
    texts: Sequence[str],
    token_text: Callable[[int], str],
) -> ForkResult:
    """Everything about a path whose cells are all drawn.

    Args:
        base: the base path of L tokens.
        known: outcomes of each cell of the stride; others are not looked at.
        settings: stride, epsilon and alpha.
        texts: (L,) texts of the base tokens.
        token_text: the text of any token alone.
    """
    places = looked_at(base, settings.stride)
    keys = [CellKey(place, token) for place in places for token, _ in base.branches[place]]
    found = [known[key] for key in (CellKey(START, START), *keys)]
    names, right = outcome_names(found)
    by_key = dict(zip([one.key for one in found], names, strict=True))
    weights = [branch_weights([prob for _, prob in base.branches[place]]) for place in places]
    categories = _categories(base, places, weights, by_key)
    tables = [
        np.stack([histogram(by_key[CellKey(place, token)], categories) for token, _ in base.branches[place]])
        for place in places
    ]
    path = np.stack([mixture(*pair) for pair in zip(weights, tables, strict=True)])
    start = histogram(by_key[CellKey(START, START)], categories)
    # The one outcome of a branch that ends the answer stands for as many equal ones as any other branch has.
    drawn = [
        Drawn(weight, np.full(len(weight), settings.samples), table)
        for weight, table in zip(weights, tables, strict=True)
    ]
    changes = find_changes(drawn, settings.alpha, seed=settings.seed)
    positions = _positions(base, places, weights, tables, path, start, settings, texts, token_text)
    return ForkResult(categories, start, positions, _forks(places, path, changes, texts), changes, right)


def _categories(
    base: BasePath, places: Sequence[int], weights: Sequence[np.ndarray], by_key: Mapping[CellKey, list[str]]
) -> list[str]:
    """Names of the categories: what is rare in the distribution of every position is folded."""
    every = list(dict.fromkeys(name for names in by_key.values() for name in names))
    largest = dict(zip(every, histogram(by_key[CellKey(START, START)], every), strict=True))
    for place, weight in zip(places, weights, strict=True):
        table = np.stack([histogram(by_key[CellKey(place, token)], every) for token, _ in base.branches[place]])
        for name, share in zip(every, mixture(weight, table), strict=True):
            largest[name] = max(largest[name], float(share))
    return fold_rare(largest)


def _positions(
    base: BasePath,
    places: Sequence[int],
    weights: Sequence[np.ndarray],
    tables: Sequence[np.ndarray],
    path: np.ndarray,
    start: np.ndarray,
    settings: ForkSettings,
    texts: Sequence[str],
    token_text: Callable[[int], str],
) -> list[PositionOutcomes]:
    hazards = np.array([hazard(*pair, settings.epsilon) for pair in zip(weights, tables, strict=True)])
    moves = zip(drift(path, start), total_variation(path), hazards, survival(hazards), strict=True)
    found = []
    for place, weight, table, outcomes, (far, tv, risk, alive) in zip(
        places, weights, tables, path, moves, strict=True
    ):
        branches = [
            BranchOutcomes(token, token_text(token), prob, shares)
            for (token, prob), shares in zip(base.branches[place], table, strict=True)
        ]
        found.append(
            PositionOutcomes(
                place, texts[place], base.entropies[place], branches, outcomes, float(far), float(tv), float(risk),
                expected_distance(weight, table), float(alive),
            )
        )  # fmt: skip
    return found


def _forks(places: Sequence[int], path: np.ndarray, changes: Changes, texts: Sequence[str]) -> list[Fork]:
    """The tokens between the last position before a change and the first one after it."""
    ends = [0, *changes.starts, len(places)]
    means = [path[low:high].mean(axis=0) for low, high in pairwise(ends)]
    forks = []
    for index, (at, gain) in enumerate(zip(changes.starts, changes.gains, strict=True)):
        first, last = places[at - 1], places[at] - 1
        text = "".join(texts[first : last + 1])
        forks.append(Fork(first, last, text, gain, means[index], means[index + 1]))
    return forks
