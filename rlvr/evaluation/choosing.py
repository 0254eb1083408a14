"""Which scores of a ledger are meant, and which may stand beside each other."""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from rlvr.errors import UserError
from rlvr.evaluation.scores import Scores

LONGEST_VALUE = 60
"""Characters of a value in a list of differences."""

MIXED = "`--mixed`"


def short_names(scores: Iterable[Any]) -> dict[str, str]:
    """Checkpoint hash -> a name for tables and figures: `x/checkpoint-50` for a checkpoint of the run folder `x`.

    Args:
        scores: anything with `checkpoint` and `checkpoint_hash`.

    Returns:
        Names that tell all of them apart: the label where short ones would not, with the hash where labels are equal.
    """
    labels = {one.checkpoint_hash: one.checkpoint for one in scores}
    names = {key: short_name(label) for key, label in labels.items()}
    for chosen in (labels, {key: f"{label} ({key[:8]})" for key, label in labels.items()}):
        taken = list(names.values())
        names = {key: name if taken.count(name) == 1 else chosen[key] for key, name in names.items()}
    return names


def short_name(label: str) -> str:
    """The end of a path; hub ids and names stay."""
    parts = [part for part in label.split("/") if part]
    if len(parts) >= 3 and parts[-2] == "checkpoints":
        return f"{parts[-3]}/{parts[-1]}"
    is_path = len(parts) > 2 or label.startswith((".", "/", "~"))
    return parts[-1] if is_path and parts else label


def find_in_ledger(scores: Sequence[Scores], text: str) -> list[str]:
    """The checkpoints that a text stands for.

    Args:
        scores: of the ledger.
        text: a label, a short name, a path or its end, a run folder (all its checkpoints), a glob, or the first digits
            of a checkpoint's hash, at least 4.

    Returns:
        Their hashes, in the ledger's order.

    Raises:
        UserError: if there is none; it lists the labels.
    """
    rules = (_exact, _is_hash, _matches, _is_path)
    for rule in rules:
        found = list(dict.fromkeys(one.checkpoint_hash for one in scores if rule(text, one)))
        if found:
            return found
    labels = list(dict.fromkeys(one.checkpoint for one in scores))
    near = get_close_matches(text, labels, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"{text} is no checkpoint of the ledger; {hint}it has {', '.join(labels)}")


def _exact(text: str, one: Scores) -> bool:
    return text in (one.checkpoint, short_name(one.checkpoint))


def _is_hash(text: str, one: Scores) -> bool:
    return re.fullmatch("[0-9a-f]{4,16}", text) is not None and one.checkpoint_hash.startswith(text)


def _matches(text: str, one: Scores) -> bool:
    if not glob.has_magic(text):
        return False
    return any(fnmatchcase(name, text) for name in (one.checkpoint, short_name(one.checkpoint)))


def _is_path(text: str, one: Scores) -> bool:
    label = one.checkpoint.rstrip("/")
    asked = text.rstrip("/")
    if label.endswith("/" + asked) or f"/{asked}/checkpoints/" in f"/{label}":
        return True
    here, there = (Path(path).expanduser().resolve() for path in (asked, label))
    return here == there or here / "checkpoints" == there.parent


def find_one(scores: Sequence[Scores], text: str) -> str:
    """As `find_in_ledger`, where one checkpoint is meant.

    Raises:
        UserError: if there is none, or more than one.
    """
    found = find_in_ledger(scores, text)
    if len(found) > 1:
        labels = {one.checkpoint_hash: one.checkpoint for one in scores}
        listed = ", ".join(f"{labels[key]} ({key})" for key in found)
        raise UserError(f"{text} stands for {len(found)} checkpoints: {listed}; name one, or give its hash")
    return found[0]


def choose(
    scores: Sequence[Scores], checkpoints: Sequence[str] | None = None, protocol: str | None = None
) -> list[Scores]:
    """The scores of some checkpoints under some protocol.

    Args:
        scores: of the ledger.
        checkpoints: as for `find_in_ledger`; None for all.
        protocol: its name, or the first digits of its hash, at least 4; None for all.

    Raises:
        UserError: if something is unknown, or nothing is left.
    """
    wanted = None if checkpoints is None else {key for text in checkpoints for key in find_in_ledger(scores, text)}
    chosen = [one for one in scores if wanted is None or one.checkpoint_hash in wanted]
    if protocol is not None:
        known = list(dict.fromkeys(f"{one.protocol['name']} ({one.protocol_hash})" for one in chosen))
        chosen = [one for one in chosen if _has_protocol(one, protocol)]
        if not chosen:
            raise UserError(f"protocol {protocol} is not in the ledger; it has {', '.join(known)}")
    return chosen


def _has_protocol(one: Scores, text: str) -> bool:
    return one.protocol["name"] == text or (len(text) >= 4 and one.protocol_hash.startswith(text))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _shown(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return "(absent)"
    text = repr(values[key]) if isinstance(values[key], str) else str(values[key])
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def protocol_differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What differs between two protocols, one entry a field: `sampling.temperature 1.0 against 0.6`.

    Args:
        a: what a hash stands for.
        b: what another stands for.
    """
    one, other = ({k: v for k, v in _flat(p).items() if k != "name"} for p in (a, b))
    return [
        f"{key} {_shown(one, key)} against {_shown(other, key)}"
        for key in dict.fromkeys([*one, *other])
        if key not in one or key not in other or one[key] != other[key]
    ]


def two_protocols(benchmark: str, a: Scores, b: Scores, may_mix: bool = True) -> UserError:
    """The error that two protocols of a benchmark are not put together, with what differs.

    Args:
        benchmark: which.
        a: the scores under the one.
        b: those under the other.
        may_mix: whether the command can mix them all the same.
    """
    first, second = (f"{one.protocol['name']} ({one.protocol_hash}, {short_name(one.checkpoint)})" for one in (a, b))
    return UserError(
        f"{benchmark} was asked under two protocols, {first} and {second}, which differ in "
        f"{'; '.join(protocol_differences(a.protocol, b.protocol))}: their scores cannot be compared; choose one with "
        f"`--protocol HASH`{f', or mix them all the same with {MIXED}' if may_mix else ''}"
    )


def require_one_protocol(scores: Sequence[Scores], mixed: bool = False, may_mix: bool = True) -> None:
    """Refuse scores of one benchmark under several protocols.

    Args:
        scores: that are to stand beside each other.
        mixed: let them.
        may_mix: whether the command can let them.

    Raises:
        UserError: naming two protocols and what differs.
    """
    first: dict[str, Scores] = {}
    for one in scores:
        other = first.setdefault(one.benchmark, one)
        if other.protocol_hash != one.protocol_hash and not mixed:
            raise two_protocols(one.benchmark, other, one, may_mix)


def sections(scores: Sequence[Scores]) -> list[list[Scores]]:
    """Scores that may stand in one table: each benchmark under one protocol, benchmarks asked alike together.

    Args:
        scores: in any mixture.

    Returns:
        Lists of scores, in order of appearance.
    """
    found: dict[tuple[Any, ...], list[Scores]] = {}
    ranks: dict[tuple[Any, ...], list[str]] = {}
    for one in scores:
        asked = tuple(str(one.protocol.get(key)) for key in ("name", "engine", "decoding", "grader"))
        hashes = ranks.setdefault((*asked, one.benchmark), [])
        if one.protocol_hash not in hashes:
            hashes.append(one.protocol_hash)
        found.setdefault((*asked, hashes.index(one.protocol_hash)), []).append(one)
    return list(found.values())


def merge_seeds(parts: Sequence[Scores]) -> Scores:
    """Samples of several seeds as more samples of each problem.

    Answer classes have names within a seed: wrong answers of two seeds that are equal but written in different ways
    stay two classes of maj@k.

    Args:
        parts: of one checkpoint, benchmark and protocol; seeds differ.

    Returns:
        Scores with the first seed.

    Raises:
        ValueError: if something else than the seed differs.
    """
    if len({(one.checkpoint_hash, one.benchmark, one.protocol_hash) for one in parts}) != 1:
        raise ValueError("scores differ in more than their seed; expected one checkpoint, benchmark and protocol")
    if len(parts) == 1:
        return parts[0]
    places: dict[str, list[tuple[Scores, int]]] = {}
    for one in parts:
        for index, problem in enumerate(one.problems):
            places.setdefault(problem, []).append((one, index))
    rows = [places[problem] for problem in sorted(places)]
    return replace(
        parts[0],
        problems=sorted(places),
        correct=[np.concatenate([one.correct[i] for one, i in row]) for row in rows],
        classes=[[name for one, i in row for name in one.classes[i]] for row in rows],
        tokens=[np.concatenate([one.tokens[i] for one, i in row]) for row in rows],
        truncated=[np.concatenate([one.truncated[i] for one, i in row]) for row in rows],
        statuses=[[status for one, i in row for status in one.statuses[i]] for row in rows],
    )
