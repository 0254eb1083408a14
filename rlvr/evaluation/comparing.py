"""Checkpoints against one, problem by problem: per benchmark, and over all benchmarks together."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np

from rlvr.errors import UserError
from rlvr.evaluation.choosing import MIXED, find_in_ledger, find_one, merge_seeds, short_names, two_protocols
from rlvr.evaluation.paired import Paired, compare_many, holm, paired_difference
from rlvr.evaluation.scores import Scores
from rlvr.evaluation.selection_bias import Honest, honest_best

ALPHA = 0.05
"""A difference is shown where its p-value is below this and its 95 % interval leaves out 0."""


@dataclass(frozen=True)
class Difference:
    """One checkpoint against A.

    Attributes:
        name: of the other checkpoint.
        benchmark: name, or `all N`.
        a: avg@n of A on the common problems.
        b: avg@n of the other.
        paired: b - a. With several others, interval and p-value hold for all of them at once.
        adjusted: p-value corrected for the number of benchmarks too; None over all benchmarks together.
    """

    name: str
    benchmark: str
    a: float
    b: float
    paired: Paired
    adjusted: float | None

    @property
    def shown(self) -> bool:
        """Whether the samples show a difference."""
        p_value = self.paired.p_value if self.adjusted is None else self.adjusted
        return p_value < ALPHA and not self.paired.low <= 0 <= self.paired.high


@dataclass(frozen=True)
class Comparison:
    """Checkpoints against A.

    Attributes:
        name: of A.
        others: names of the others.
        differences: per benchmark and other; those over all benchmarks last.
        best: which of the others scores highest, and what choosing it flatters; None with one other, or one problem.
        notes: what to know, a line each.
    """

    name: str
    others: list[str]
    differences: list[Difference]
    best: Honest | None
    notes: list[str]

    @property
    def verdicts(self) -> list[Difference]:
        """One a checkpoint: over all benchmarks, or on the only one."""
        return self.differences[-len(self.others) :]


@dataclass(frozen=True)
class _Block:
    """The common problems of a benchmark.

    Attributes:
        benchmark: name.
        values: (1 + C, N) avg@n of A and the others.
        counts: (1 + C, N) samples.
        notes: lines.
    """

    benchmark: str
    values: np.ndarray
    counts: np.ndarray
    notes: list[str]


def compare(
    scores: Sequence[Scores], a: str, others: Sequence[str], *, mixed: bool = False, seed: int | None = None
) -> Comparison:
    """Compare checkpoints with A on the problems that all of them were asked.

    One other: the paired difference with its interval and the sign-flip test; Holm's correction over the benchmarks.
    Several: simultaneous intervals and step-down max-T p-values over the checkpoints, times the number of benchmarks.
    Over all benchmarks the interval is stratified. Samples of several seeds are samples of their problem.

    Args:
        scores: of a ledger.
        a: a checkpoint, as for `find_in_ledger`.
        others: as many as wanted, each as for `find_in_ledger`; a pattern may stand for several, A not among them.
        mixed: compare under different protocols all the same.
        seed: look at samples of this seed only; None for all.

    Returns:
        The comparison.

    Raises:
        UserError: for unknown checkpoints, A with itself, no common benchmark or problem, or different protocols.
    """
    chosen = [one for one in scores if seed is None or one.seed == seed]
    if not chosen:
        seeds = sorted({one.seed for one in scores})
        raise UserError(f"seed {seed} is not in the ledger; it has {', '.join(map(str, seeds))}")
    keys = _keys(chosen, a, others)
    names = short_names(chosen)
    notes, blocks = [], []
    have = {key: {one.benchmark for one in chosen if one.checkpoint_hash == key} for key in keys}
    everything = dict.fromkeys(one.benchmark for one in chosen if one.checkpoint_hash in keys)
    for benchmark in everything:
        lacking = [names[key] for key in keys if benchmark not in have[key]]
        if lacking:
            notes.append(f"{benchmark} is left out: {', '.join(lacking)} was not asked it.")
        else:
            blocks.append(_block(chosen, keys, benchmark, names, mixed))
    if not blocks:
        raise UserError(
            f"{', '.join(names[key] for key in keys)} have no benchmark in common; "
            f"evaluate them on the same ones first: {', '.join(everything)} are there"
        )
    notes += [note for block in blocks for note in block.notes]
    others_names = [names[key] for key in keys[1:]]
    many = len(others_names) > 1
    differences = _many(blocks, others_names) if many else _pair(blocks, others_names[0])
    return Comparison(names[keys[0]], others_names, differences, _best(blocks) if many else None, notes)


def _keys(scores: Sequence[Scores], a: str, others: Sequence[str]) -> list[str]:
    """Hashes of A and the others, each once."""
    base = find_one(scores, a)
    found: list[str] = []
    for text in others:
        keys = find_in_ledger(scores, text)
        if keys == [base]:
            raise UserError(
                f"{text} has the same weights as {a} (hash {base}), so there is nothing to compare; name another one"
            )
        found += [key for key in keys if key != base]
    if not found:
        raise UserError("nothing to compare with; name at least one more checkpoint")
    return [base, *dict.fromkeys(found)]


def _block(scores: Sequence[Scores], keys: Sequence[str], benchmark: str, names: dict[str, str], mixed: bool) -> _Block:
    parts = _one_protocol(scores, keys, benchmark, mixed)
    merged = [merge_seeds(part) for part in parts]
    common = sorted(set.intersection(*(set(one.problems) for one in merged)))
    if not common:
        raise UserError(
            f"{', '.join(names[key] for key in keys)} were asked different problems of {benchmark}, none in common; "
            "evaluate them with the same limit"
        )
    places = [{problem: index for index, problem in enumerate(one.problems)} for one in merged]
    rows = [[one.correct[place[problem]] for problem in common] for one, place in zip(merged, places, strict=True)]
    values = np.array([[problem.mean() for problem in row] for row in rows])
    counts = np.array([[len(problem) for problem in row] for row in rows])
    notes = []
    total = max(one.total for one in merged)
    if len(common) < max(total, *(len(one.problems) for one in merged)):
        asked = ", ".join(f"{names[key]} {len(one.problems)}" for key, one in zip(keys, merged, strict=True))
        differ = f" ({asked})" if any(len(one.problems) != len(common) for one in merged) else ""
        notes.append(f"{benchmark}: the {len(common)} of {total} problems that all were asked{differ}.")
    seeds = [sorted({one.seed for one in part}) for part in parts]
    if any(one != seeds[0] for one in seeds):
        listed = ", ".join(f"{names[key]} {' and '.join(map(str, one))}" for key, one in zip(keys, seeds, strict=True))
        notes.append(f"{benchmark}: sampled with different seeds ({listed}); paired by problem all the same.")
    if len({one.protocol_hash for one in merged}) > 1:
        notes.append(f"{benchmark}: different protocols, compared on purpose ({MIXED}).")
    return _Block(benchmark, values, counts, notes)


def _one_protocol(scores: Sequence[Scores], keys: Sequence[str], benchmark: str, mixed: bool) -> list[list[Scores]]:
    """The scores of each checkpoint under the protocol that all have; with `mixed`, under the one that each has."""
    parts = [[one for one in scores if one.checkpoint_hash == key and one.benchmark == benchmark] for key in keys]
    hashes = [dict.fromkeys(one.protocol_hash for one in part) for part in parts]
    common = [name for name in hashes[0] if all(name in other for other in hashes)]
    if len(common) == 1:
        return [[one for one in part if one.protocol_hash == common[0]] for part in parts]
    if not common and mixed and all(len(one) == 1 for one in hashes):
        return parts
    if len(common) > 1:
        one, other = (next(x for x in parts[0] if x.protocol_hash == name) for name in common[:2])
        raise two_protocols(benchmark, one, other)
    odd = next((part for part, own in zip(parts, hashes, strict=True) if not set(own) & set(hashes[0])), None)
    if odd is None or mixed:
        raise UserError(
            f"no protocol of {benchmark} was used for all of these checkpoints, and some have several; choose with "
            f"`--protocol HASH`, or compare fewer checkpoints"
        )
    raise two_protocols(benchmark, parts[0][0], odd[0])


def _together(blocks: Sequence[_Block]) -> tuple[np.ndarray, np.ndarray]:
    """(1 + C, N) values of all problems, and (N,) the benchmark of each."""
    values = np.concatenate([block.values for block in blocks], axis=1)
    return values, np.repeat(np.arange(len(blocks)), [block.values.shape[1] for block in blocks])


def _pair(blocks: Sequence[_Block], name: str) -> list[Difference]:
    def denominators(counts: np.ndarray) -> np.ndarray:
        return np.array([lcm(*column) for column in counts.T.tolist()])

    results = [
        paired_difference(block.values[0], block.values[1], denominators=denominators(block.counts)) for block in blocks
    ]
    adjusted: list[float | None] = [*holm([result.p_value for result in results])]
    named = [(block.benchmark, block.values.mean(1)) for block in blocks]
    if len(blocks) > 1:
        values, strata = _together(blocks)
        counts = np.concatenate([block.counts for block in blocks], axis=1)
        results.append(paired_difference(values[0], values[1], strata=strata, denominators=denominators(counts)))
        named.append((f"all {len(blocks)}", values.mean(1)))
        adjusted.append(None)
    return [
        Difference(name, benchmark, float(means[0]), float(means[1]), result, p_value)
        for (benchmark, means), result, p_value in zip(named, results, adjusted, strict=True)
    ]


def _many(blocks: Sequence[_Block], names: Sequence[str]) -> list[Difference]:
    found = []
    for block in blocks:
        results = compare_many(block.values[0], block.values[1:])
        means = block.values.mean(1).tolist()
        found += [
            # Bonferroni: Holm's steps are not known to hold for families of step-down p-values.
            Difference(name, block.benchmark, means[0], mean, result, min(1.0, len(blocks) * result.p_value))
            for name, mean, result in zip(names, means[1:], results, strict=True)
        ]
    if len(blocks) > 1:
        values, strata = _together(blocks)
        results, means = compare_many(values[0], values[1:], strata=strata), values.mean(1).tolist()
        found += [
            Difference(name, f"all {len(blocks)}", means[0], mean, result, None)
            for name, mean, result in zip(names, means[1:], results, strict=True)
        ]
    return found


def _best(blocks: Sequence[_Block]) -> Honest | None:
    values, strata = _together(blocks)
    return honest_best(values[1:], strata=strata) if values.shape[1] > 1 else None
