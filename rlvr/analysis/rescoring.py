"""Recorded completions and what several policies say of their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rlvr.analysis.records import RecordFile, token_rows
from rlvr.analysis.scoring import open_policy, prompt_ids_of, score_completions
from rlvr.errors import UserError


@dataclass(frozen=True)
class Completions:
    """n recorded completions; token ids as arrays, so that a million tokens take four megabytes.

    Attributes:
        prompts: n texts.
        token_ids: (T,) int32 of each.
        correct: n verdicts, None where there is none.
        problems: n labels of the problem.
        places: n times (file, number of the completion in it).
    """

    prompts: list[str]
    token_ids: list[np.ndarray]
    correct: list[bool | None]
    problems: list[str]
    places: list[tuple[str, int]]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each."""
        return [len(ids) for ids in self.token_ids]

    def chosen(self, rows: Sequence[int]) -> "Completions":
        """Some of them, in this order."""
        return Completions(*([column[row] for row in rows] for column in vars(self).values()))


def read_completions(files: Sequence[RecordFile], most: int | None = None, *, wrong: bool = False) -> Completions:
    """The completions of records, scored or not.

    Args:
        files: at least one.
        most: so many, evenly spaced; None for all.
        wrong: wrong answers only.

    Raises:
        UserError: if there is none, or `most` is below 1.
    """
    if most is not None and most < 1:
        raise UserError(f"--completions is {most}; expected at least 1")
    found = Completions([], [], [], [], [])
    for file in files:
        for rows in token_rows(file.path, ["token_ids"], ["prompt", "prompt_id", "correct"]):
            ids, ends = rows.tokens["token_ids"], np.cumsum(rows.lengths).tolist()
            found.token_ids.extend(ids[start:end] for start, end in pairwise([0, *ends]))
            found.prompts.extend(rows.rows["prompt"])
            found.correct.extend(rows.rows["correct"])
            named = zip(rows.rows["prompt_id"], rows.rows["prompt"], strict=True)
            found.problems.extend(prompt_id or prompt for prompt_id, prompt in named)
            found.places.extend((file.path.name, index) for index in rows.index.tolist())
    rows_ = [row for row, verdict in enumerate(found.correct) if not wrong or verdict is False]
    if most is not None and most < len(rows_):
        rows_ = [rows_[index * len(rows_) // most] for index in range(most)]
    if not rows_:
        raise UserError(f"{files[0].path} holds no {'wrong ' * wrong}completion; expected one at least")
    return found.chosen(rows_)


class Tokenized:
    """Prompts as token ids, each different text once, by the tokenizer of the first policy.

    Args:
        completions: whose prompts.
    """

    def __init__(self, completions: Completions) -> None:
        self.completions = completions
        self.vocabulary: dict[str, int] | None = None
        self.prompt_ids: list[list[int]] = []

    def take(self, place: str, tokenizer: Any) -> None:
        """Tokenize, or compare with the tokenizer that did.

        Raises:
            UserError: if it has other tokens: the recorded ids would mean other texts.
        """
        vocabulary = tokenizer.get_vocab()
        if self.vocabulary is None:
            known = {prompt: prompt_ids_of(tokenizer, prompt) for prompt in dict.fromkeys(self.completions.prompts)}
            self.prompt_ids = [known[prompt] for prompt in self.completions.prompts]
            self.vocabulary = vocabulary
        elif vocabulary != self.vocabulary:
            raise UserError(
                f"the tokenizer of {place} has other tokens than that of the first policy; expected the same"
            )


def score_policies(
    completions: Completions, policies: Sequence[str], temperature: float = 1.0, tokens_per_pass: int = 16384
) -> list[np.ndarray]:
    """The entropies of the same tokens under several policies, one in memory at a time.

    Args:
        completions: n, of N tokens together.
        policies: places, as for `open_policy`; one that is named twice is scored once.
        temperature: divides the logits.
        tokens_per_pass: see `score_completions`.

    Returns:
        (N,) float32 nats for each policy.

    Raises:
        UserError: if a policy cannot be opened, or their tokenizers differ.
    """
    if not 0 < temperature < float("inf"):
        raise UserError(f"--temperature is {temperature}; expected a positive number")
    if tokens_per_pass < 1:
        raise UserError(f"--tokens-per-pass is {tokens_per_pass}; expected at least 1")
    tokenized, found = Tokenized(completions), dict[str, np.ndarray]()
    for place in dict.fromkeys(policies):
        model, tokenizer = open_policy(place)
        tokenized.take(place, tokenizer)
        scored = score_completions(
            model, tokenized.prompt_ids, completions.token_ids, temperature=temperature,
            tokens_per_pass=tokens_per_pass,
        )  # fmt: skip
        found[place] = np.concatenate([one.entropies for one in scored])
        del model, scored  # before the next is opened
    return [found[place] for place in policies]
