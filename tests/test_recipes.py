"""Recipes: their documents agree with their files, `rlvr recipes` lists and copies them, and each smoke run trains."""

import json
import math
import re
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlvr.cli import main
from rlvr.config.algebra import BatchSizes
from rlvr.config.compose import compose, recipes_dir
from rlvr.config.convert import to_mapping
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.recipes import HEADINGS, NOT_RUN, Recipe, copy_recipe, list_recipes, read_settings, sections, table

RECIPES = {recipe.name: recipe for recipe in list_recipes()}
FILES = [f"{name}/{model}" for name, recipe in RECIPES.items() for model in recipe.models]
each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))


@cache
def composed(file: str) -> RunConfig:
    return compose([f"recipe={file}"])


def value_of(config: RunConfig, key: str) -> Any:
    value: Any = to_mapping(config)
    for part in key.split("."):
        value = value[part]
    return value


def same(value: Any, text: str) -> bool:
    """Whether a value of the configuration is what a table says: numbers by value, everything else by its text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) == float(text)
    return str(value) == text


def test_every_folder_is_a_recipe_with_a_model_and_a_smoke_run() -> None:
    folders = sorted(path for path in recipes_dir().iterdir() if path.is_dir())
    assert [path.name for path in folders] == list(RECIPES)
    assert len(folders) >= 3
    for folder in folders:
        assert (folder / "smoke.yaml").is_file(), folder
        assert RECIPES[folder.name].models, folder
        assert f"]({folder.name}/README.md)" in (recipes_dir() / "README.md").read_text()


@each_recipe
def test_headings_and_the_claim_have_their_form(recipe: Recipe) -> None:
    text = (recipe.path / "README.md").read_text()
    assert text.startswith("# ")
    parts = sections(recipe.path / "README.md")
    assert tuple(parts) == HEADINGS
    assert all(parts.values()), "no section is empty"
    assert len(recipe.claim) <= 130
    assert recipe.claim.endswith(".")
    assert parts["Claim and paper"].splitlines()[1] == "", "the claim is one line"


@each_recipe
def test_what_is_ours_was_not_run_or_has_a_date_and_a_commit(recipe: Recipe) -> None:
    assert recipe.results
    for row in recipe.results:
        assert row.paper, row
        if row.ours == NOT_RUN:
            assert (row.date, row.commit) == ("", ""), row
        else:
            assert re.search(r"\d", row.ours), row
            assert date.fromisoformat(row.date) >= date(2025, 1, 1), row
            assert re.fullmatch(r"[0-9a-f]{7,40}", row.commit), row


@each_recipe
def test_the_files_set_what_the_table_of_settings_says(recipe: Recipe) -> None:
    settings = read_settings(recipe)
    assert settings
    for row in settings:
        files = [model for model in recipe.models if any(fnmatchcase(model, pattern) for pattern in row.files)]
        assert files, f"{row}: no file is meant"
        for pattern in row.files:
            assert any(fnmatchcase(model, pattern) for model in recipe.models), f"{row}: {pattern} is no file"
        for model in files:
            value = value_of(composed(f"{recipe.name}/{model}"), row.key)
            assert same(value, row.value), f"{model}: {row.key} is {value}, the table says {row.value}"


@each_recipe
def test_the_commands_and_results_name_files_that_exist(recipe: Recipe) -> None:
    parts = sections(recipe.path / "README.md")
    named = re.findall(r"\brecipe=([\w.-]+/[\w.-]*\w)", parts["Exact command"])
    assert named
    assert set(named) <= set(FILES)
    rows = {code for row in recipe.results for code in re.findall(r"`([^`=]+)`", row.what)}
    assert rows
    assert rows <= set(recipe.models)


@pytest.mark.parametrize("file", FILES)
def test_the_batch_divides_on_one_and_on_eight_processes(file: str) -> None:
    config = composed(file)
    for ranks in (1, 8):
        sizes = BatchSizes(
            prompts=config.rollouts.prompts, num_generations=config.rollouts.num_generations,
            updates_per_rollout=config.optimizer.updates_per_rollout, num_iterations=config.optimizer.num_iterations,
            micro_batch_rows=config.optimizer.micro_batch_rows or 1, ranks=ranks, window=config.optimizer.window,
        )  # fmt: skip
        assert sizes.slices_per_step * sizes.micro_batch_rows * sizes.updates_per_rollout == sizes.rows_per_rank
        assert config.run.steps % sizes.steps_per_rollout == 0, "the last rollout batch is used up"
        assert config.run.save_steps % sizes.steps_per_rollout == 0, "checkpoints lie between rollout batches"


def test_the_forking_tokens_step_has_32_prompts_and_warms_up_over_ten_batches_as_released() -> None:
    config = composed("forking_tokens/qwen3-8b_released")
    assert config.rollouts.prompts / config.optimizer.updates_per_rollout == 32
    assert config.optimizer.warmup_steps == 10 * config.optimizer.updates_per_rollout
    assert composed("dapo/qwen2.5-32b").optimizer.warmup_steps == 20 * 16


def test_sizes_differ_in_nothing_but_the_model() -> None:
    for arm in ("", "_released", "_all_tokens"):
        small, *others = (to_mapping(composed(f"forking_tokens/qwen3-{size}{arm}")) for size in ("8b", "14b", "32b"))
        for other in others:
            assert other["model"].pop("path") != small["model"]["path"]
            assert other == {**small, "model": {k: v for k, v in small["model"].items() if k != "path"}}


def test_arms_differ_from_the_method_in_what_they_are_about() -> None:
    def differing(arm: str) -> set[str]:
        method, other = (to_mapping(composed(f"forking_tokens/qwen3-8b{name}")) for name in ("", arm))
        return {
            f"{section}.{key}" for section, values in method.items() if isinstance(values, dict)
            for key in values | other[section] if values.get(key) != other[section].get(key)
        }  # fmt: skip

    assert differing("_random20") == {"selection.name"}
    assert differing("_bottom80") == {"selection.name", "selection.keep"}
    assert differing("_all_tokens") == {
        "run.algorithm", "selection.name", "selection.keep", "selection.candidates", "selection.normalizer",
    }  # fmt: skip
    assert differing("_released") == {
        "selection.scope", "selection.normalizer", "optimizer.lr_scheduler_type", "optimizer.warmup_steps",
        "optimizer.micro_batch_rows",
    }  # fmt: skip


def test_a_table_ends_where_its_lines_end() -> None:
    text = "| a | b |\n| --- | --- |\n| 1 | `x` |\n| `2`, `3` | |\n\n| 3 | z |\n"
    assert list(table(text, ("a", "b"))) == [["1", "x"], ["`2`, `3`", ""]]
    assert list(table(text, ("a", "c"))) == []


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    for recipe in RECIPES.values():
        assert f"{recipe.name} ({'run here' if recipe.run else 'not run'}): {recipe.claim}\n" in said
    assert all(f"  recipe={file}\n" in said for file in FILES)


def test_a_copy_is_edited_and_run_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "copy", "forking_tokens", "my_forks"]) == 0
    assert "  rlvr train recipe=my_forks/qwen3-8b.yaml\n" in capsys.readouterr().out
    base = tmp_path / "my_forks" / "qwen3-8b.yaml"
    assert compose(["recipe=my_forks/qwen3-14b.yaml"]) == composed("forking_tokens/qwen3-14b")
    base.write_text(base.read_text().replace("  prompts: 512", "  prompts: 256"))
    assert compose(["recipe=my_forks/qwen3-8b.yaml"]).rollouts.prompts == 256
    config = compose(["recipe=./my_forks/qwen3-14b.yaml", "run.seed=3"])
    assert (config.rollouts.prompts, config.model.path, config.run.seed) == (256, "Qwen/Qwen3-14B-Base", 3)
    assert composed("forking_tokens/qwen3-14b").rollouts.prompts == 512, "the package's own is as it was"
    text = (tmp_path / "my_forks" / "README.md").read_text()
    assert "recipe=my_forks/qwen3-8b.yaml run.name" in text
    assert "recipe=forking_tokens/" not in text


def test_a_copy_under_its_own_name_inherits_from_itself(tmp_path: Path) -> None:
    copy_recipe("forking_tokens", tmp_path / "x" / "forking_tokens")
    base = tmp_path / "x" / "forking_tokens" / "qwen3-8b.yaml"
    base.write_text(base.read_text().replace("  prompts: 512", "  prompts: 256"))
    assert compose([f"recipe={base.with_name('qwen3-32b.yaml')}"]).rollouts.prompts == 256


def test_a_copy_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    assert main(["recipes", "copy", "forking_tokens", str(taken)]) == 2
    assert f"{taken} exists; expected a folder that does not" in capsys.readouterr().err
    assert list(taken.iterdir()) == []
    with pytest.raises(UserError, match=r"^recipe forking_token is unknown; did you mean forking_tokens\? known are "):
        copy_recipe("forking_token", tmp_path / "new")
    with pytest.raises(UserError, match=r"the folder is called 'a b'; expected letters, digits"):
        copy_recipe("forking_tokens", tmp_path / "a b")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_path_that_is_no_recipe_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^recipe=nowhere/a.yaml is not a file; expected a YAML file, e.g. one that"):
        compose(["recipe=nowhere/a.yaml"])
    (tmp_path / "config.yaml").write_text("run: {seed: 1}\n")
    with pytest.raises(UserError, match=r"config.yaml is not a recipe; expected '# @package _global_' in its first"):
        compose([f"recipe={tmp_path}/config.yaml"])
    (tmp_path / "a=b.yaml").write_text("# @package _global_\n")
    with pytest.raises(UserError, match=r"the file is called 'a=b'; expected letters"):
        compose([f"recipe='{tmp_path}/a=b.yaml'"])


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_smoke_run_takes_two_steps_and_its_numbers_are_finite(name: str, tmp_path: Path) -> None:
    from rich.console import Console

    from rlvr.train import Run

    config = compose([f"recipe={name}/smoke", f"run.dir={tmp_path}", "run.name=x", "logging.progress=none"])
    Run(config, Console(quiet=True)).execute()
    rows = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == 2
    assert all(math.isfinite(row[key]) for row in steps for key in ("loss", "grad_norm"))
    assert all(math.isfinite(row["entropy"]) for row in steps if "entropy" in row)
    assert any(row["grad_norm"] > 0 for row in steps), "something was learnt from"
