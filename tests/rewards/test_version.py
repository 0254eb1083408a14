"""The grader's version stands for its verdicts: one that changes asks for a new number."""

import hashlib
import importlib.metadata
import json
from pathlib import Path

import pytest

from rlvr.rewards import grade as module
from rlvr.rewards.breaker import Limits
from rlvr.rewards.grade import grade_many
from rlvr.rewards.policy import EXTRACTS, THINKS, Policy
from rlvr.rewards.version import GRADER_VERSION, grader_version

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases_equivalence.jsonl").read_text().splitlines()]

COMPLETIONS = [
    r"So \boxed{7}.", r"\boxed{6} or \boxed{7}", "The answer is 7.", "Answer: 7", "Answer: $7$.\nAnswer: 8", "it is 7",
    r"<think>\boxed{8}</think> \boxed{7}", r"<think>\boxed{7}", r"</think>7", r"\boxed{7", r"\boxed{}", "",
    r"**Answer:** \boxed{\text{7 apples}}", "Answer: 14/2", r"\boxed{7\%}", "7,000 is not 7", r"\boxed{007}",
    r"\boxed{\frac{7", r"\boxed{" + "7" * 600 + "}", "x </think> Answer: 7.0", r"\boxed{x=7}", "the answer is (7)",
]  # fmt: skip
"""Texts whose answer depends on the rules, for the gold 7."""

NOTED = {1: "69097d1c1029fb05", 2: "41f248c0177a202e"}
"""What each version's verdicts hash to."""


def verdicts() -> list[list[str | bool | None]]:
    """`correct`, `extracted` and `status` of every case, then of every text under every rule."""
    limits = Limits(deadline=30.0, strikes=None, patience=None)  # a slow machine changes no verdict
    boxed = [f"\\boxed{{{case['answer']}}}" for case in CASES]
    found = grade_many(boxed, [case["gold"] for case in CASES], limits=limits)
    for extract in EXTRACTS:
        for think in THINKS:
            policy = Policy(extract=extract, think=think)
            for cut in (False, True):
                size = len(COMPLETIONS)
                found += grade_many(COMPLETIONS, ["7"] * size, [cut] * size, policy=policy, limits=limits)
    return [[verdict.correct, verdict.extracted, verdict.status] for verdict in found]


def check(found: list[list[str | bool | None]]) -> None:
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    if NOTED.get(GRADER_VERSION) != digest:
        pytest.fail(
            f"the verdicts of grader version {GRADER_VERSION} hash to {digest}, noted is {NOTED.get(GRADER_VERSION)}: "
            "a verdict changed, or a case; raise GRADER_VERSION in rlvr/rewards/version.py if a verdict did, and note "
            "the new digest in NOTED"
        )


def test_the_verdicts_are_those_of_the_version() -> None:
    check(verdicts())


def test_one_changed_verdict_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a grader that wants letters in capitals."""
    decide_fast = module.decide_fast

    def strict(text: str, golds: tuple[str, ...]) -> tuple[str, str] | None:
        return ("wrong", "capitals") if text == "even" else decide_fast(text, golds)

    monkeypatch.setattr(module, "decide_fast", strict)
    with pytest.raises(pytest.fail.Exception, match=r"raise GRADER_VERSION in rlvr/rewards/version\.py"):
        check(verdicts())


def test_the_version_names_the_library_that_is_asked() -> None:
    assert grader_version() == f"{GRADER_VERSION} (math-verify {importlib.metadata.version('math-verify')})"
    assert max(NOTED) == GRADER_VERSION
