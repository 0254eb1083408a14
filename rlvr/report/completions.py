"""Which recorded completions a report shows, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr.report.reading import RunData
from rlvr.report.tokens import Decoder, Token, load_decoder, tokens_of, visible
from rlvr.rollouts.record import read_record

PER_STEP = 6
"""Completions of a step."""

MOST_TOKENS = 400
"""Tokens shown of a completion."""

MOST_CHARACTERS = 4000
"""Characters shown of a prompt or an answer."""


@dataclass(frozen=True)
class Completion:
    """A completion as the page shows it; texts are visible but not escaped.

    Attributes:
        step: the optimizer step it was sampled for.
        row: its global row in the rollout batch.
        group: the number of its prompt in the batch.
        prompt: text.
        gold: the answer that counts as right.
        verdict: `correct`, `wrong` or `ungraded`.
        status: of the grader.
        reward: the sum of all rewards.
        rewards: by function.
        truncated: cut at the limit.
        length: tokens.
        kept: tokens that carry gradient.
        advantage: of its first token; None where it has no token.
        tokens: the shown ones.
    """

    step: int
    row: int
    group: int
    prompt: str
    gold: str
    verdict: str
    status: str
    reward: float
    rewards: dict[str, float]
    truncated: bool
    length: int
    kept: int
    advantage: float | None
    tokens: list[Token]


@dataclass(frozen=True)
class Shown:
    """The section of the completions.

    Attributes:
        steps: recorded optimizer steps that are shown.
        recorded: how many were recorded.
        completions: by step.
        decoder: where token texts come from.
        remarks: what could not be read.
    """

    steps: list[int] = field(default_factory=list)
    recorded: int = 0
    completions: list[Completion] = field(default_factory=list)
    decoder: Decoder = field(default_factory=lambda: Decoder(None, "nothing to decode"))
    remarks: list[str] = field(default_factory=list)


def first_middle_last(paths: Sequence[Path]) -> list[Path]:
    """At most three, in order."""
    return [paths[index] for index in sorted({0, len(paths) // 2, len(paths) - 1})] if paths else []


def choose(rows: Sequence[dict[str, Any]], count: int = PER_STEP) -> list[dict[str, Any]]:
    """The completions to show: a right and a wrong answer to the same prompt first, then what else is not a repetition.

    Args:
        rows: of a record.
        count: at most so many.
    """
    groups: dict[Any, dict[bool, dict[str, Any]]] = {}
    distinct: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        distinct.setdefault((row["prompt"], row["completion"]), row)
        groups.setdefault(row["group"], {}).setdefault(bool(row["correct"]), row)
    mixed = [row for answers in groups.values() if len(answers) == 2 for row in answers.values()]
    ordered = {id(row): row for row in [*mixed, *sorted(distinct.values(), key=lambda row: not any(row["kept"]))]}
    return list(ordered.values())[:count]


def shown_completions(run: RunData) -> Shown:
    """The completions of the first, the middle and the last record of a run."""
    if not run.records:
        return Shown()
    decoder = load_decoder(tokenizer_places(run))
    remarks: list[str] = []
    completions: list[Completion] = []
    for path in first_middle_last(run.records):
        try:
            completions += [_completion(row, decoder) for row in choose(read_record(path))]
        except Exception as error:  # pyarrow's errors for a broken file, KeyError for one of another make
            remarks.append(f"rollouts/{path.name} could not be read ({type(error).__name__}).")
    steps = list(dict.fromkeys(completion.step for completion in completions))
    return Shown(steps, len(run.records), completions, decoder, remarks)


def shortened(text: str) -> str:
    """A visible text of at most `MOST_CHARACTERS`, which says what is left out."""
    left_out = len(text) - MOST_CHARACTERS
    return visible(text[:MOST_CHARACTERS]) + (f" \u2026 ({left_out} more characters)" if left_out > 0 else "")


def _completion(row: dict[str, Any], decoder: Decoder) -> Completion:
    verdict = "ungraded" if row["correct"] is None else "correct" if row["correct"] else "wrong"
    tokens = tokens_of(row, decoder.decode, MOST_TOKENS)
    return Completion(
        step=row["step"], row=row["row"], group=row["group"], prompt=shortened(row["prompt"]),
        gold=shortened(row["gold"]), verdict=verdict, status=visible(row["status"] or "none"),
        reward=row["reward"], rewards=row["rewards"], truncated=bool(row["truncated"]), length=len(row["token_ids"]),
        kept=sum(row["kept"]), advantage=row["advantages"][0] if row["advantages"] else None, tokens=tokens,
    )  # fmt: skip


def tokenizer_places(run: RunData) -> list[tuple[str, str | Path]]:
    """Where the tokenizer of a run may be: its newest checkpoint, then the policy it started from."""
    from rlvr.assets import base_policy_path

    places: list[tuple[str, str | Path]] = []
    checkpoint = run.folder.newest_checkpoint()
    if checkpoint is not None:
        places.append((f"checkpoints/{checkpoint.name}", checkpoint))
    start = run.setting("model", "path")
    if start == "builtin":
        places.append(("the built-in policy", base_policy_path()))
    elif isinstance(start, str):
        places.append((f"model.path {visible(start)}", Path(start).expanduser() if start.startswith("~") else start))
    return places
