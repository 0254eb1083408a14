"""Which checkpoint a run goes on from, and whether it may.

Promises: a checkpoint is used only if every byte is as it was committed; every one that was passed over is named with
the file and the reason; what differs between then and now is refused unless it is allowed by name.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from rlvr.checkpoints.layout import REPLACED, committed, step_of
from rlvr.checkpoints.manifest import NAME, read_manifest, verify
from rlvr.errors import UserError

SETTING = "run.allow_changes"
"""The setting that allows differences by name."""


class Rejected(NamedTuple):
    """A checkpoint that was passed over, with its problems as `file: reason`."""

    path: Path
    reasons: list[str]

    def message(self, used: Path | None) -> str:
        """One line: which, why, and what is used instead."""
        more = f" and {len(self.reasons) - 1} more" if len(self.reasons) > 1 else ""
        instead = f"using {used.name} instead" if used else "no earlier checkpoint is whole"
        return f"{self.path.name} is damaged and was rejected ({self.reasons[0]}{more}); {instead}"


def newest_good(checkpoints: Path) -> tuple[Path | None, list[Rejected]]:
    """The checkpoint with the highest step that verifies, and those above it that do not; read in pieces.

    A checkpoint whose replacement was interrupted counts, under its name of the moment; after `sweep` there is none.
    """
    found = [*committed(checkpoints).values(), *committed(checkpoints, REPLACED).values()]  # of one step, the new first
    rejected: list[Rejected] = []
    for path in sorted(found, key=step_of, reverse=True):
        reasons = _problems(path)
        if not reasons:
            return path, rejected
        rejected.append(Rejected(path, reasons))
    return None, rejected


def _problems(path: Path) -> list[str]:
    reasons = verify(path)
    if reasons:
        return reasons
    step = read_manifest(path).step
    return [] if step == step_of(path) else [f"{NAME}: of step {step}, but the folder's name says {step_of(path)}"]


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        flat |= _flat(value, name) if isinstance(value, Mapping) else {name: value}
    return flat


def incompatible(then: Mapping[str, Any], now: Mapping[str, Any], allow: Collection[str] = ()) -> list[str]:
    """What would make the resumed run another one, each as `name: now (was then)`.

    Args:
        then: facts of the checkpoint. Those that `now` does not name, such as a metric, are not compared.
        now: facts of this run; a mapping in it is compared key by key, `packages.torch`.
        allow: names that may differ; `packages` allows all of it.

    Raises:
        UserError: for an allowed name that is no fact.
    """
    before, today = _flat({key: then[key] for key in now if key in then}), _flat(now)
    names = sorted({**before, **today})
    known = {".".join(parts[: end + 1]) for parts in (name.split(".") for name in names) for end in range(len(parts))}
    for name in allow:
        if name not in known:
            near = get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; expected some of {', '.join(sorted(now))}"
            raise UserError(f"{SETTING} has {name}, which is no fact of a checkpoint{hint}")
    return [
        f"{name}: {_shown(today, name)} (was {_shown(before, name)})"
        for name in names
        if not _same(before, today, name) and not any(f"{name}.".startswith(f"{part}.") for part in allow)
    ]


def _same(before: Mapping[str, Any], today: Mapping[str, Any], name: str) -> bool:
    return name in before and name in today and _json_like(before[name]) == _json_like(today[name])


def _json_like(value: Any) -> Any:
    return [_json_like(part) for part in value] if isinstance(value, tuple | list) else value


def _shown(facts: Mapping[str, Any], name: str) -> str:
    return str(facts[name]) if name in facts else "not recorded"


def check_compatible(checkpoint: Path, now: Mapping[str, Any], allow: Collection[str] = ()) -> None:
    """Refuse to go on from a checkpoint of another run; arguments as in `incompatible`.

    Raises:
        UserError: naming every difference, and how to allow it.
    """
    found = incompatible(read_manifest(checkpoint).facts, now, allow)
    if found:
        names = ",".join(line.split(":", 1)[0] for line in found)
        raise UserError(
            f"{checkpoint.name} was made by another run: {'; '.join(found)}; go on as it was, or allow the difference "
            f"with {SETTING}=[{names}] and lose the promise of an exact resume"
        )
