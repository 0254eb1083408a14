"""Rewards for form, repetition and length, the control, and those of users."""

from pathlib import Path

import pytest

from rlvr.config.compose import compose
from rlvr.errors import UserError
from rlvr.registry import load_variants
from rlvr.rewards.accuracy import Accuracy
from rlvr.rewards.adapter import RewardFunction
from rlvr.rewards.base import Reward, Scored
from rlvr.rewards.custom import Custom
from rlvr.rewards.format import Format, has_form
from rlvr.rewards.length import Length
from rlvr.rewards.random import Random
from rlvr.rewards.repetition import Repetition, repeated_share


def batch_of(completions: list[str], golds: list[str] | None = None, lengths: list[int] | None = None) -> Scored:
    rows = len(completions)
    return Scored(completions, golds or ["1"] * rows, lengths or [1] * rows, [False] * rows, 100)


@pytest.mark.parametrize(
    ("completion", "plain", "thought"),
    [
        (r"so \boxed{1}", True, False),
        (r"so \boxed{1", False, False),
        (r"so \boxed{}", False, False),
        ("1", False, False),
        (r"<think>hm</think> \boxed{1}", True, True),
        (r"hm</think> \boxed{1}", True, True),
        (r"<think></think> \boxed{1}", True, False),
        (r"<think>\boxed{1}</think> done", True, False),
        (r"<think>a<think>b</think> \boxed{1}", True, False),
        (r"<think>a</think> b</think> \boxed{1}", True, False),
    ],
)
def test_form(completion: str, plain: bool, thought: bool) -> None:
    assert has_form(completion, think=False) is plain
    assert has_form(completion, think=True) is thought
    assert Format(present=2.0, absent=-1.0)(batch_of([completion])) == [2.0 if plain else -1.0]


def test_repetition() -> None:
    assert repeated_share("a b c d", 2) == 0.0
    assert repeated_share("a a a a a", 2) == 0.75
    assert repeated_share("a", 2) == 0.0
    assert Repetition(ngram=2)(batch_of(["a a a a a", "a b c"])) == [-0.75, 0.0]
    assert Repetition(ngram=2, free=0.5)(batch_of(["a a a a a", "a b a b"])) == [-0.5, 0.0]


def test_length_among_the_answers_to_one_prompt() -> None:
    batch = Scored(["a"] * 6, ["1"] * 6, [10, 20, 30, 7, 7, 7], [False] * 6, 100, group_size=3)
    assert Length()(batch) == [0.0, -0.5, -1.0, 0.0, 0.0, 0.0]


def test_length_does_not_compare_prompts_that_share_a_gold_on_any_number_of_ranks() -> None:
    lengths = [10, 20, 100, 200]  # two prompts with the gold 2
    alone = Scored(["a"] * 4, ["2"] * 4, lengths, [False] * 4, 300, group_size=2)
    halves = [Scored(["a"] * 2, ["2"] * 2, lengths[at : at + 2], [False] * 2, 300, group_size=2) for at in (0, 2)]
    assert Length()(alone) == [0.0, -1.0, 0.0, -1.0]
    assert [value for half in halves for value in Length()(half)] == [0.0, -1.0, 0.0, -1.0]
    with pytest.raises(UserError, match="does not know how many there are"):
        Length()(batch_of(["a"] * 2))


def test_length_against_a_target() -> None:
    batch = batch_of(["a"] * 4, lengths=[5, 10, 15, 90])
    assert Length(target=10)(batch) == [0.0, 0.0, -0.5, -1.0]
    assert Length(target=10, only_shorten=False)(batch) == [-0.5, 0.0, -0.5, -1.0]


def test_the_control_depends_on_nothing_but_text_and_seed() -> None:
    completions = [f"answer {n}" for n in range(400)]
    values = Random(share=0.25)(batch_of(completions))
    assert 60 < sum(value or 0.0 for value in values) < 140
    assert Random(share=0.25)(batch_of(completions[::-1])) == values[::-1]
    assert Random(share=0.25, seed=1)(batch_of(completions)) != values
    assert set(Random(share=1.0)(batch_of(completions))) == {1.0}


@pytest.mark.parametrize(
    ("reward", "settings", "message"),
    [
        (Format, {"present": 0.0}, "expected present > absent"),
        (Repetition, {"ngram": 0}, "expected 1 word or more"),
        (Repetition, {"free": 1.0}, "expected a share"),
        (Length, {"target": 0}, "expected 1 token or more"),
        (Random, {"share": 2.0}, "expected a share from 0 to 1"),
        (Accuracy, {"extract": "box"}, "reward.accuracy.extract is 'box'"),
        (Accuracy, {"tolerance": 2.0}, "reward.accuracy.tolerance is 2.0"),
        (Accuracy, {"workers": 0}, "reward.accuracy.workers is 0"),
        (Custom, {"path": "nothing"}, "expected package.module:name"),
        (Custom, {"path": "no_such_module:f"}, "cannot be imported"),
        (Custom, {"path": "json:dmps"}, "json has no dmps; it has"),
        (Custom, {"path": "math:pi"}, "expected a function or a Reward"),
    ],
)
def test_settings_that_make_no_sense(reward: type[Reward], settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        reward(**settings)  # type: ignore[arg-type]


MODULE = """
from dataclasses import dataclass
from rlvr.rewards.base import Reward, Scored

def brevity(completions, golds, factor=1.0):
    return [-factor * len(text) for text in completions]

def short(completions, golds):
    return [1.0]

def broken(completions, golds):
    return [float("nan") for _ in completions]

@dataclass
class Finished(Reward):
    paid: float = 1.0

    def __call__(self, batch: Scored):
        return [None if cut else self.paid for cut in batch.truncated]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's, in the working directory."""
    name = f"my_rewards_{abs(hash(tmp_path)) % 10**8}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return name


def test_a_function_by_its_path(module: str) -> None:
    assert Custom(path=f"{module}:brevity")(batch_of(["ab", "abc"])) == [-2.0, -3.0]
    assert Custom(path=f"{module}:brevity", options={"factor": 2})(batch_of(["ab"])) == [-4.0]


def test_a_reward_by_its_path(module: str) -> None:
    batch = Scored(["a", "b"], ["1", "1"], [1, 1], [True, False], 5)
    assert Custom(path=f"{module}:Finished", options={"paid": 3.0})(batch) == [None, 3.0]
    with pytest.raises(UserError, match="do not fit"):
        Custom(path=f"{module}:Finished", options={"pay": 3.0})


def test_what_a_reward_gives_is_checked(module: str) -> None:
    with pytest.raises(UserError, match="gave 1 rewards for 2 completions"):
        Custom(path=f"{module}:short")(batch_of(["a", "b"]))
    with pytest.raises(UserError, match="gave nan for completion 0"):
        Custom(path=f"{module}:broken")(batch_of(["a"]))
    with pytest.raises(UserError, match=r"reward\.custom\.path is empty"):
        Custom()(batch_of(["a"]))


def test_rewards_are_set_on_the_command_line(module: str) -> None:
    config = compose([
        f"+reward.custom={{path: '{module}:brevity', weight: 0.5}}", "+reward.format={weight: 0.1}",
        "+reward.repetition={}", "+reward.length.target=20", "reward.accuracy.think=required",
    ])  # fmt: skip
    assert list(config.reward) == ["accuracy", "custom", "format", "repetition", "length"]
    assert config.reward["custom"].weight == 0.5
    assert config.reward["accuracy"].policy().think == "required"
    assert {"custom", "format", "length", "random", "repetition"} <= load_variants()["reward"].keys()


def test_what_verdicts_say_is_logged() -> None:
    logged: dict[str, float] = {}
    completions = [r"\boxed{3}", "3", r"\boxed{}", r"\boxed{" + "1" * 600 + "}"]
    reward = RewardFunction("accuracy", Accuracy())
    reward.bind([0], 8)
    values = reward(completions, [[0]] * 4, ["3"] * 4, lambda key, value: logged.update({key: value}))
    assert values == [1.0, 0.0, 0.0, 0.0]
    assert logged["accuracy"] == 0.25
    assert logged["verifier/no_answer"] == 0.25
    assert logged["verifier/unparseable"] == 0.25
    assert logged["verifier/timeout"] == logged["verifier/crash"] == 0.0
    assert logged["verifier/seconds_p99"] > 0.0
