"""Arms, seeds and cells; what is written is read back; what is no sweep is refused."""

from pathlib import Path

import pytest

from rlvr.errors import UserError
from rlvr.sweep.ablation import Ablation, ablation_names, read_ablation
from rlvr.sweep.grammar import read_settings
from rlvr.sweep.plan import Plan, difference, make_plan, read_plan, write_plan

OWN = ("ablation", "run.dir")


def plan(*texts: str, ablation: Ablation | None = None, baseline: str | None = None, name: str | None = None) -> Plan:
    return make_plan(name, read_settings(texts, OWN), ablation, baseline)


def small() -> Ablation:
    arms = {"all": ["selection.keep=1.0"], "few": ["selection.keep=0.1"]}
    return Ablation("Why?", ["algorithm=dapo_top20"], [0, 1], "all", arms)


def test_combinations_and_seeds_make_cells() -> None:
    found = plan("selection.keep=0.2,1.0", "optimizer.learning_rate=1e-4,2e-4", "run.seed=3,4", "run.steps=5")
    assert found.name == "sweep-keep-learning_rate"
    assert (found.settings, found.seeds) == (["run.steps=5"], [3, 4])
    assert [(arm.name, arm.baseline) for arm in found.arms] == [
        ("keep_0.2-learning_rate_0.0001", "keep_1.0-learning_rate_0.0001"),
        ("keep_0.2-learning_rate_0.0002", "keep_1.0-learning_rate_0.0002"),
        ("keep_1.0-learning_rate_0.0001", "keep_1.0-learning_rate_0.0001"),
        ("keep_1.0-learning_rate_0.0002", "keep_1.0-learning_rate_0.0002"),
    ]
    cells = found.cells
    assert len(cells) == 8
    assert [cell.name for cell in cells[3:5]] == [
        "keep_1.0-learning_rate_0.0002-seed3",
        "keep_0.2-learning_rate_0.0001-seed4",
    ]
    assert found.overrides(cells[0], Path("a b")) == [
        "run.steps=5", "selection.keep=0.2", "optimizer.learning_rate=0.0001", "run.seed=3",
        "run.name=keep_0.2-learning_rate_0.0001-seed3", "run.dir='a b/sweep-keep-learning_rate'",
    ]  # fmt: skip


def test_without_full_keep_the_first_is_the_baseline_unless_one_is_named() -> None:
    assert {arm.baseline for arm in plan("algorithm=grpo,dapo").arms} == {"algorithm_grpo"}
    assert {arm.baseline for arm in plan("algorithm=grpo,dapo", baseline="algorithm_dapo").arms} == {"algorithm_dapo"}
    with pytest.raises(UserError, match="--baseline x is no arm; expected one of algorithm_grpo, algorithm_dapo"):
        plan("algorithm=grpo,dapo", baseline="x")


def test_seeds_alone_make_one_arm() -> None:
    found = plan("run.seed=0,1")
    assert (found.name, [arm.name for arm in found.arms], found.arms[0].baseline) == ("sweep-seeds", ["all"], None)


def test_an_ablation_gives_arms_settings_and_seeds() -> None:
    found = plan("ablation=small", "run.steps=7", ablation=small())
    assert (found.name, found.about, found.seeds) == ("small", "Why?", [0, 1])
    assert found.settings == ["algorithm=dapo_top20", "run.steps=7"]
    assert [(arm.name, arm.baseline) for arm in found.arms] == [("all", "all"), ("few", "all")]
    assert plan("ablation=small", "run.seed=5", ablation=small(), name="x").seeds == [5]


def test_an_ablation_times_a_setting_compares_within_its_values() -> None:
    found = plan("ablation=small", "optimizer.learning_rate=1e-4,2e-4", ablation=small())
    ends = ["0.0001", "0.0001", "0.0002", "0.0002"]
    assert [arm.name for arm in found.arms] == [
        f"{name}-learning_rate_{end}" for name, end in zip(["all", "few"] * 2, ends, strict=True)
    ]
    assert [arm.baseline for arm in found.arms] == [f"all-learning_rate_{end}" for end in ends]
    assert found.arms[1].overrides == ["selection.keep=0.1", "optimizer.learning_rate=0.0001"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["run.steps=3"], "nothing is swept"),
        (["run.seed=3"], "nothing is swept"),
        (["a=interval(1,2)", "b=1,2"], "a is an interval, which has no end of values; add --search"),
        (["a=x/y,x_y"], "two arms would both be called a_x_y"),
    ],
)
def test_what_is_no_sweep_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan(*texts)


def test_settings_that_the_arms_differ_in_are_refused() -> None:
    with pytest.raises(UserError, match=r"selection.keep is what the arms of the ablation differ in"):
        plan("ablation=small", "selection.keep=0.3", ablation=small())


def test_a_plan_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = plan("ablation=small", "optimizer.learning_rate=1e-4,2e-4", ablation=small())
    write_plan(found, tmp_path / "sweep.yaml")
    assert read_plan(tmp_path / "sweep.yaml") == found
    assert write_twice(found, tmp_path) == (tmp_path / "sweep.yaml").read_text()
    with pytest.raises(UserError, match=r"has no sweep.yaml, so it is no sweep"):
        read_plan(tmp_path / "x" / "sweep.yaml")


def write_twice(found: Plan, folder: Path) -> str:
    write_plan(found, folder / "again.yaml")
    return (folder / "again.yaml").read_text()


def test_differences_are_named() -> None:
    assert difference({"a": {"b": 1, "c": 2}, "d": []}, {"a": {"b": 1, "c": 3}, "d": []}) == ["a.c=3 (was 2)"]
    assert difference({"a": 1}, {"b": 1}) == ["a=None (was 1)", "b=1 (was None)"]


def test_ablations_are_found_by_name_or_path(tmp_path: Path) -> None:
    assert {"entropy_percentile", "algorithms"} <= set(ablation_names())
    path = tmp_path / "own.yaml"
    path.write_text("baseline: a\nseeds: [1]\narms: {a: [run.steps=1], b: run.steps=2}\n")
    assert read_ablation(str(path)).arms == {"a": ["run.steps=1"], "b": ["run.steps=2"]}
    with pytest.raises(UserError, match=r"ablation=algorithm is unknown; did you mean algorithms\? known are"):
        read_ablation("algorithm")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arms: {a: [x=1]}", r"ablation=.*: baseline is ''; expected one of the arms a"),
        ("baseline: a\narms: {a: [x=1,2]}", r"arms.a\[1\] is 2; expected a text"),
        ("baseline: a\narms: {a: ['x=1,2']}", "a holds several values or run.seed"),
        ("baseline: a\narms: {a: [run.seed=1]}", "a holds several values or run.seed"),
        ("baseline: a\nseeds: []\narms: {a: [x=1]}", "seeds is empty"),
        ("baseline: a\narm: {}", "arm is not a field of Ablation; did you mean arms"),
        ("{", "is no YAML"),
    ],
)
def test_an_ablation_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_ablation(str(path))
