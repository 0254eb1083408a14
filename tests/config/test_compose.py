"""Composition: every file composes, later sources win, and what does not fit is refused in one line."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from rlvr.config import compose as module
from rlvr.config.compose import compose, configs_dir, read_config, recipes_dir, write_config
from rlvr.config.convert import CHOSEN, to_config, to_mapping
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.registry import load_variants

FILES = [path.relative_to(configs_dir()).with_suffix("") for path in sorted(configs_dir().glob("*/*.yaml"))]
FILES = [path for path in FILES if path.parent.name not in ("benchmark", "protocol", "ablation")]  # of other commands
RECIPES = [path.relative_to(recipes_dir()).with_suffix("").as_posix() for path in sorted(recipes_dir().rglob("*.yaml"))]
ALGORITHMS = [path.name for path in FILES if path.parent.name == "algorithm"]
VARIANTS = [(group, name) for group, known in load_variants().items() if group in CHOSEN for name in known]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_choice_composes(path: Path) -> None:
    assert isinstance(compose([f"{path.parent}={path.name}"]), RunConfig)


@pytest.mark.parametrize("recipe", RECIPES or [None])
def test_every_recipe_composes(recipe: str | None) -> None:
    assert isinstance(compose([f"recipe={recipe or 'null'}"]), RunConfig)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_saved_configuration_reads_back_equal(algorithm: str, tmp_path: Path) -> None:
    config = compose([f"algorithm={algorithm}", "run.name=x", "trl.adam_beta2=0.95", "reward=dapo"])
    assert config.run.algorithm == algorithm
    assert to_config(to_mapping(config)) == config
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(("group", "name"), VARIANTS)
def test_the_defaults_of_a_variant_reach_the_configuration(group: str, name: str) -> None:
    values = module.merge([f"{group}={name}", "algorithm=grpo"])[group]
    algorithm_sets = {"objective": {"epsilon", "reduction"}}.get(group, set())
    for field, default in module.to_plain_defaults(load_variants()[group][name]).items():
        if field not in algorithm_sets:
            assert values[field] == default, field
    assert values["name"] == name


def test_sections_without_a_file_take_the_defaults_of_the_schema() -> None:
    config = compose()
    for section in ("model", "rollouts", "optimizer", "evaluation", "logging"):
        assert getattr(config, section) == type(getattr(config, section))()
    assert config.run == dataclasses.replace(type(config.run)(), algorithm="dapo_top20")


def test_an_algorithm_wins_over_its_groups_and_the_command_line_over_all() -> None:
    default = load_variants()["objective"]["clipped"]()
    assert compose(["algorithm=grpo"]).objective.epsilon_high == default.epsilon_high
    assert compose(["algorithm=dapo"]).objective.epsilon_high == 0.28 != default.epsilon_high
    assert compose(["objective.epsilon_high=0.5", "algorithm=dapo"]).objective.epsilon_high == 0.5
    assert compose(["algorithm=dapo_top20", "selection=random"]).selection.name == "random"


@pytest.mark.parametrize(
    ("rule", "keep"), [("top_entropy", 0.2), ("random", 0.2), ("bottom_entropy", 0.8), ("all", 1.0)]
)
def test_a_rule_chosen_under_the_default_algorithm_keeps_its_own_share(rule: str, keep: float) -> None:
    config = compose([f"selection={rule}"])
    assert (config.selection.name, config.selection.keep) == (rule, keep)
    assert (config.selection.candidates, config.selection.normalizer) == ("informative", "kept")
    assert compose(["algorithm=dapo_top20"]).selection.keep == 0.2


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("rollouts.top_p=0.9", "rollouts.top_p=0.9 with vLLM"),
        ("rollouts.top_k=20", "rollouts.top_k=20 with vLLM"),
        ("trl.min_p=0.1", "trl.min_p=0.1 with vLLM"),
        ("trl.repetition_penalty=1.15", "trl.repetition_penalty=1.15 with vLLM"),
        ("trl.vllm_structured_outputs_regex=a", "trl.vllm_structured_outputs_regex=a with vLLM"),
        ("trl.generation_kwargs={presence_penalty: 0.5, seed: 1}", "^generation_kwargs.presence_penalty=0.5 with vLLM"),
    ],
)
def test_a_sampler_that_cuts_or_penalises_is_not_corrected_for(setting: str, named: str) -> None:
    with pytest.raises(UserError, match=rf"{named} .* is biased: leave it out, or set rollouts\.correct_sampler=false"):
        compose(["rollouts.backend=vllm", setting])
    assert compose(["rollouts.backend=vllm", setting, "rollouts.correct_sampler=false"]).rollouts.backend == "vllm"
    assert compose([setting]).rollouts.correct_sampler, "transformers needs no correction"


def test_settings_of_vllm_that_leave_its_distribution_alone_may_stand_beside_the_correction() -> None:
    harmless = ["trl.repetition_penalty=1.0", "trl.min_p=null", "trl.generation_kwargs={seed: 1}", "rollouts.top_k=0"]
    assert compose(["rollouts.backend=vllm", *harmless]).rollouts.correct_sampler


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a recipe into a folder that composition takes for `recipes/`."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    monkeypatch.setattr(module, "recipes_dir", lambda: folder)

    def write(name: str, text: str) -> None:
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# @package _global_\n{text}")

    return write


BASE = """
defaults:
  - override /algorithm: dapo
  - override /selection: random
  - override /reward: dapo
selection: {keep: 0.3}
objective: {epsilon_high: 0.4}
rollouts: {prompts: 16}
"""


def test_a_recipe_wins_over_its_algorithm_and_the_command_line_over_the_recipe(recipe: Callable) -> None:
    recipe("claim/model", BASE)
    config = compose(["recipe=claim/model"])
    assert config.run.algorithm == "dapo"
    assert (config.selection.name, config.selection.keep) == ("random", 0.3)
    assert config.objective.epsilon_high == 0.4
    assert config.objective.dual_clip == 10.0, "what the recipe leaves alone is the algorithm's"
    assert list(config.reward) == ["accuracy", "soft_overlong"]
    assert config.rollouts.prompts == 16
    later = compose(["rollouts.prompts=8", "recipe=claim/model", "selection=bottom_entropy", "algorithm=grpo"])
    assert (later.rollouts.prompts, later.selection.name, later.run.algorithm) == (8, "bottom_entropy", "grpo")
    assert later.objective.epsilon_high == 0.4


def test_a_recipe_inherits_another_and_changes_it(recipe: Callable) -> None:
    recipe("claim/model", BASE)
    recipe("claim/smoke", "defaults:\n  - /recipes/claim/model\n  - _self_\nrollouts: {prompts: 4}\n")
    config = compose(["recipe=claim/smoke"])
    assert (config.rollouts.prompts, config.selection.keep, config.run.algorithm) == (4, 0.3, "dapo")
    by_group = "defaults:\n  - claim/model\n  - override /selection: top_entropy\n  - _self_\nrollouts: {prompts: 2}\n"
    recipe("claim/other", by_group)
    config = compose(["recipe=claim/other"])
    assert (config.rollouts.prompts, config.selection.name) == (2, "top_entropy")


def test_an_unknown_recipe_names_the_nearest(recipe: Callable) -> None:
    recipe("claim/model", BASE)
    with pytest.raises(UserError, match=r"^recipe=claim/modle is unknown; did you mean claim/model\? known are claim/"):
        compose(["recipe=claim/modle"])


def test_a_mistake_inside_a_recipe_is_one_line(recipe: Callable) -> None:
    recipe("a/choice", "defaults:\n  - override /algorithm: dapp\n")
    recipe("a/key", "selection: {kep: 0.2}\n")
    recipe("a/yaml", "selection: {keep: 0.2\n")
    for name, expected in (("choice", "algorithm/dapp"), ("key", "did you mean keep?"), ("yaml", "yaml")):
        with pytest.raises(UserError) as refused:
            compose([f"recipe=a/{name}"])
        assert expected in str(refused.value)
        assert "\n" not in str(refused.value)
        assert "Config search path" not in str(refused.value)


def test_a_number_in_exponent_form_is_a_number(recipe: Callable) -> None:
    recipe("a/b", "optimizer: {learning_rate: 1e-6}\n")
    for override in ("optimizer.learning_rate=1e-6", "optimizer.learning_rate='1e-6'", "recipe=a/b"):
        assert compose([override]).optimizer.learning_rate == 1e-6


REFUSED = {
    "selection.kep=0.1": "selection.kep is not a field of TopEntropy; did you mean keep?",
    "+typo=1": "typo is not a section of the configuration; known are advantage, data",
    "++typo=1": "typo is not a section",
    "+selektion.keep=1": "selektion is not a section of the configuration; did you mean selection?",
    "run.seeed=1": "run.seeed is not a field of RunSection; did you mean seed?",
    "rollouts.record.evry=2": "rollouts.record.evry is not a field of RecordSection; did you mean every?",
    "reward.accuracy.wieght=2": "reward.accuracy.wieght is not a field of Accuracy; did you mean weight?",
    "reward.accuracies.weight=2": "reward.accuracies is unknown; did you mean accuracy?",
    "reward.accuracy=0": "reward.accuracy is 0; expected a mapping with weight",
    "run.steps=many": "run.steps is 'many'; expected a whole number",
    "run.steps=1.5": "run.steps is 1.5; expected a whole number",
    "run.steps=true": "run.steps is True; expected a whole number",
    "run.steps=null": "run.steps is None; expected a whole number",
    "run.steps=0": "run.steps is 0; expected a number of at least 1",
    "run.resume=1": "run.resume is 1; expected true, false, auto or the path of a checkpoint",
    "run.name=3": "run.name is 3; expected a text",
    "rollouts.temperature=hot": "rollouts.temperature is 'hot'; expected a number",
    "rollouts.temperature=true": "rollouts.temperature is True; expected a number",
    "rollouts.top_k=-1": "rollouts.top_k is -1; expected a number of at least 0",
    "evaluation.max_completion_length=0": "evaluation.max_completion_length is 0; expected a number of at least 1",
    "optimizer.learning_rate=inf": "optimizer.learning_rate is inf; expected a finite number",
    "optimizer.learning_rate=nan": "optimizer.learning_rate is nan; expected a finite number",
    "logging.report_to=3": "logging.report_to is 3; expected a list",
    "logging.report_to=[3]": "logging.report_to[0] is 3; expected a text",
    "trl=3": "trl is 3; expected a mapping",
    "run=3": "run is 3; expected a mapping with name",
    "selection.keep=0": "selection.keep is 0.0; expected a share above 0 and at most 1",
    "selection.keep=1.5": "selection.keep is 1.5; expected a share above 0 and at most 1",
    "selection.keep=-0.2": "selection.keep is -0.2; expected a share above 0 and at most 1",
    "algorithm=dap": "algorithm=dap is unknown; did you mean dapo? known are dapo, dapo_dynamic, dapo_top20, dr_grpo, ",
    "selection=top": "selection=top is unknown; ",
    "selection.name=tob_entropy": "selection=tob_entropy is unknown; did you mean top_entropy?",
    "reward=nothing": "reward=nothing is unknown; known are accuracy, dapo",
    "advantage=null": "advantage=null is unknown; known are",
    "~selection": "selection chooses nothing; set selection=NAME: known are all",
    "foo": "foo is not a setting (missing EQUAL); expected KEY=VALUE",
    "run.seed=[1": "run.seed=[1 is not a setting",
    "=3": "=3 is not a setting; expected KEY=VALUE",
    "run.seed=1,2": "run.seed=1,2 is not a setting; expected KEY=VALUE with one value",
    "hydra.verbose=true": "hydra.verbose=true sets Hydra itself",
    "run.name=???": "run.name: Missing mandatory value",
    "run.name=${nothing}": "run.name: Interpolation key 'nothing' not found",
    "recipe=nope": "recipe=nope is unknown",
}  # fmt: skip


@pytest.mark.parametrize("override", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(UserError) as refused:
        compose([override])
    assert REFUSED[override] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_several_rewards_may_be_chosen_at_once() -> None:
    assert list(compose(["reward=[accuracy,dapo]"]).reward) == ["accuracy", "soft_overlong"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_config(compose(["algorithm=dapo_top20", "run.name=x"]), tmp_path / "config.yaml")
    return tmp_path / "config.yaml"


def test_values_of_a_saved_configuration_can_be_overridden(saved: Path) -> None:
    changed = ["run.seed=7", "selection.keep=0.5", "++trl.adam_beta2=0.9", "logging.report_to=[wandb]"]
    config = read_config(saved, changed)
    assert (config.run.seed, config.selection.keep, config.run.name) == (7, 0.5, "x")
    assert (config.trl, config.logging.report_to) == ({"adam_beta2": 0.9}, ["wandb"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("selection=random", "selection=random cannot be combined with --from"),
        ("selection.name=random", "cannot be combined with --from"),
        ("algorithm=grpo", "cannot be combined with --from"),
        ("+recipe=a/b", "cannot be combined with --from"),
        ("reward=dapo", "cannot be combined with --from"),
        ("launch=slurm", "or launch.kind=slurm"),
        ("deepspeed=zero2", "cannot be combined with --from"),
        ("~run.seed", "cannot be combined with --from"),
        ("run.seeed=1", "did you mean seed?"),
        ("run.seed.x=1", "run.seed"),
        ("run.seed", "expected KEY=VALUE"),
        ("run.seed=[1", "is not a setting"),
    ],
)
def test_a_saved_configuration_keeps_its_variants_and_its_checks(saved: Path, override: str, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        read_config(saved, [override])
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, "is not a file"), ("- a\n", "holds no mapping"), ("a: {b\n", "a.yaml"), ("", "has no section advantage")],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str | None, expected: str) -> None:
    path = tmp_path / "a.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_config(path)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
