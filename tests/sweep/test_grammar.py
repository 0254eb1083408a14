"""Settings with several values: Hydra's own multirun is the oracle for the product."""

import pytest

from rlvr.errors import UserError
from rlvr.sweep.grammar import Axis, Interval, combination_name, combinations, overrides_of, read_settings


def product_of(*texts: str) -> list[list[str]]:
    return [overrides_of(one) for one in combinations(read_settings(texts).axes)]


def test_the_product_by_hand() -> None:
    assert product_of("a.x=1,2", "b=u,v,w") == [
        ["a.x=1", "b=u"], ["a.x=1", "b=v"], ["a.x=1", "b=w"], ["a.x=2", "b=u"], ["a.x=2", "b=v"], ["a.x=2", "b=w"],
    ]  # fmt: skip
    assert product_of("a=1") == [[]]


@pytest.mark.parametrize(
    "texts",
    [
        ["selection.keep=0.05,0.1,0.2,0.5,1.0", "optimizer.learning_rate=1e-4,4e-4"],
        ["a=choice(x,y)", "+b=range(0,10,3)", "c=[1,2],[3]"],
        ["a='u v','w,x'", "b={p:1},{p:2}", "c=null,true"],
        ["a=range(0.1,0.5,0.1)"],
        ["a=sort(3,1,2)"],
        ["a=1,2", "b=3,4", "a=5,6"],
    ],
)
def test_the_product_is_that_of_hydras_multirun(texts: list[str]) -> None:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    expected = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(texts), None)[0]
    assert product_of(*texts) == expected


def test_settings_are_sorted() -> None:
    found = read_settings(
        [
            "algorithm=dapo",
            "ablation=x",
            "run.seed=0,1,2",
            "a=1,2",
            "b=tag(log,interval(1e-4,1e-3))",
            "c=int(interval(2,8))",
        ],
        own=("ablation",),
    )
    assert found.fixed == ["algorithm=dapo"]
    assert found.axes == [Axis("a", ["1", "2"])]
    assert found.intervals == [Interval("b", 1e-4, 1e-3, False, True), Interval("c", 2, 8, True, False)]
    assert (found.seeds, found.own) == ([0, 1, 2], {"ablation": "x"})
    assert found.keys == {"algorithm", "a", "b", "c"}
    assert read_settings(["run.seed=range(3,6)"]).seeds == [3, 4, 5]
    assert read_settings(["run.seed=7"]).seeds == [7]
    assert read_settings([]).seeds is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("selection.keep", r"selection.keep is not a setting .*expected KEY=VALUE or KEY=A,B,C"),
        ("run.name=x", r"run.name=x is not for a sweep to set; a cell is named after its arm and seed"),
        ("run.resume=true", r"run.resume=true is not for a sweep to set; a sweep goes on by itself"),
        ("a=shuffle(1,2)", r"a=shuffle\(1,2\) is in random order"),
        ("a=glob(*)", r"a=glob\(\*\) is a glob"),
        ("a=0.1,0.10", r"a=0.1,0.10 has 0.1 twice"),
        ("run.seed=a,b", r"run.seed=a,b: a seed is a whole number"),
        ("run.seed=-1", r"run.seed=-1: a seed is a whole number"),
        ("ablation=a,b", r"ablation=a,b has several values"),
        ("a=interval(2,1)", r"a=interval\(2,1\) cannot be searched; expected low < high"),
        ("a=tag(log,interval(0,1))", r"cannot be searched; expected low < high, and low above 0"),
        ("a=tag(odd,interval(0,1))", r"cannot be searched; the only tag is log"),
        ("a@b=1", r"a@b=1 is not a setting"),
    ],
)
def test_what_a_sweep_cannot_take_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_settings([text], own=("ablation",))


def test_names_are_short_and_can_be_folders() -> None:
    assert combination_name({"selection.keep": "0.2"}) == "keep_0.2"
    assert combination_name({"+a.x": "1", "b.x": "'u v/w'"}) == "a.x_1-b.x_u_v_w"
    assert combination_name({"a": "[1,2]", "optimizer.learning_rate": "1e-05"}) == "a_1_2-learning_rate_1e-05"
    assert combination_name({}) == ""
