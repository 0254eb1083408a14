"""What a back end is asked, and what comes back: one sample of one problem at a time."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from rlvr.data.base import Prompt


class Key(NamedTuple):
    """Which sample of which problem."""

    benchmark: str
    problem_id: str
    sample: int


@dataclass(frozen=True)
class Request:
    """One sample that is wanted.

    Attributes:
        key: which.
        prompt: text, or a chat that the model's own template renders.
        seed: of this sample, 63 bits; see `sample_seed`.
    """

    key: Key
    prompt: Prompt
    seed: int


@dataclass(frozen=True)
class Sample:
    """One sample that was drawn.

    Attributes:
        key: which.
        completion: text without special tokens.
        token_count: tokens, the end-of-text token included.
        finish_reason: `stop` where the model ended it, `length` where it was cut.
    """

    key: Key
    completion: str
    token_count: int
    finish_reason: str


def sample_seed(seed: int, key: Key) -> int:
    """The seed of one sample: a hash of the evaluation's seed and of the sample's key.

    So a sample depends neither on the samples around it, nor on how many there are, nor on who draws it.

    Args:
        seed: of the evaluation.
        key: which sample.

    Returns:
        A number in [0, 2^63), which every generator takes.
    """
    text = "\0".join([str(seed), key.benchmark, key.problem_id, str(key.sample)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
