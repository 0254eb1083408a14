"""The documents against the code: paths, metric keys, make targets, links."""

import ast
import importlib.util
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.source import MODULES, ROOT, runtime_nodes, tree_of
from tests.test_architecture import OVERRIDES, TRL_PRIVATE

ARCHITECTURE = ROOT / "docs" / "architecture.md"
METRICS = ROOT / "docs" / "metrics.md"
CODE = re.compile(r"`([^`\n]+)`")
TOP = r"(?:rlvr|configs|recipes|scripts|tests|docs|\.ci)/"
ROOT_FILES = {
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    "README.md",
    "CONTRIBUTING.md",
    ".pre-commit-config.yaml",
}
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
SKIPPED = {"runs", "build", "dist", "wandb"}
ROOTS = "selection|seconds|clip_ratio|completions|rewards|sampling|objective|dynamic|heldout"
METRIC = re.compile(rf"(?:{ROOTS})(?:/[\w<>]+)+")
MAPPINGS = {"metrics", "sums", "logs", "head", "counts"}
"""Names of variables in rlvr/ that hold metrics by key."""


def markdown() -> Iterator[Path]:
    """Every Markdown file of the repository, not of what is installed or produced in it."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        yield from (Path(folder) / name for name in files if name.endswith(".md"))


def prose(path: Path) -> str:
    """A document without its code blocks."""
    return re.sub(r"^( *)```.*?^\1```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def paths_in(text: str) -> list[str]:
    """The paths of the repository that stand in backticks."""
    return [code for code in CODE.findall(text) if code in ROOT_FILES or re.fullmatch(rf"{TOP}[\w./-]*", code)]


def test_every_path_in_the_architecture_exists() -> None:
    named = paths_in(prose(ARCHITECTURE))
    assert len(named) > 60, "the reader of paths finds too few"
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/metrics.md", "README.md"])
def test_paths_in_other_documents_exist(name: str) -> None:
    if not (ROOT / name).exists():
        pytest.skip(f"{name} is not written yet")
    assert [path for path in paths_in(prose(ROOT / name)) if not (ROOT / path).exists()] == []


def test_relative_links_resolve() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in markdown()
        for target in LINK.findall(prose(path))
        if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists()
    ]
    assert broken == []


def test_overrides_and_private_names_stand_in_the_architecture() -> None:
    named = set(CODE.findall(prose(ARCHITECTURE)))
    assert (OVERRIDES | TRL_PRIVATE) - named == set()


def test_every_make_target_is_mentioned() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):.*?## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    texts = [(ROOT / name).read_text() for name in ("CONTRIBUTING.md", "README.md") if (ROOT / name).exists()]
    assert {"setup", "test", "soak"} <= set(targets)
    assert [name for name in targets if not any(re.search(rf"make {name}\b(?!-)", text) for text in texts)] == []


def tables(heading: str, until: str) -> str:
    """A part of the document on metrics, from one heading of the second or third level to the next of the same."""
    return METRICS.read_text().split(f"\n{heading}\n")[1].split(f"\n{until} ")[0]


def first_cells(text: str) -> set[str]:
    """The keys in the first column of every table."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in CODE.findall(row.split(" | ")[0])}


def documented() -> set[str]:
    """The keys of `metrics.jsonl` that the document explains."""
    return first_cells(tables("## `metrics.jsonl`", "##").split("\n### Keys of TRL")[0])


def never() -> set[str]:
    """The keys of TRL that the document says never appear."""
    return first_cells(tables("### Keys of TRL that do not appear", "##"))


def _template(node: ast.JoinedStr) -> str:
    """An f-string with `<name>` in the place of every value."""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "<name>" for part in node.values)


def _keys_at(node: ast.AST) -> Iterator[str]:
    """What a node of the syntax tree logs: a mapping's key, a phase, a call of `log_metric`, a literal like a key."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.slice, ast.Constant):
        if ast.unparse(node.value) in MAPPINGS:
            yield str(node.slice.value)
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
        if ast.unparse(node.targets[0]) in MAPPINGS:
            yield from (str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        name = ast.unparse(node.func).split(".")[-1]
        if name in ("phase", "log_metric"):
            yield f"seconds/{node.args[0].value}" if name == "phase" else str(node.args[0].value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and METRIC.fullmatch(node.value):
        yield node.value
    elif isinstance(node, ast.JoinedStr) and METRIC.fullmatch(_template(node)):
        yield _template(node)


@cache
def logged() -> dict[str, str]:
    """Every key that the package logs, `<name>` for a computed part, with one place each."""
    found: dict[str, str] = {}
    for path in MODULES.values():
        for node in runtime_nodes(tree_of(path)):
            for key in _keys_at(node):
                found.setdefault(key, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    return found


def _matches(template: str, key: str) -> bool:
    return re.fullmatch(re.escape(template).replace("<name>", r"[\w<>]+"), key) is not None


def test_every_key_that_the_package_logs_is_documented() -> None:
    keys = logged()
    assert {"rollout_step", "entropy", "kl", "accuracy", "selection/threshold", "seconds/score"} <= keys.keys()
    assert "rewards/<name>/<name>" in keys, "the reader of f-strings finds too few"
    missing = {key: place for key, place in keys.items() if not any(_matches(key, known) for known in documented())}
    assert missing == {}


def _library(package: str, file: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed"
    return (Path((spec.submodule_search_locations or [""])[0]) / file).read_text()


def trl_keys() -> set[str]:
    """The keys that TRL's trainer logs, `<name>` for a reward's name."""
    keys = re.findall(r'_metrics\[\w+\]\[f?"([^"]+)"\]|_metrics\["train"\]\["([^"]+)"\]', _library("trl", "trainer/grpo_trainer.py"))  # fmt: skip # noqa: E501
    return {re.sub(r"\{\w+\}", "<name>", first or second) for first, second in keys}


def trainer_keys() -> set[str]:
    """The keys that transformers' trainer logs."""
    return set(re.findall(r'\blogs\["(\w+)"\]', _library("transformers", "trainer.py")))


def test_every_key_of_trl_is_documented_or_said_not_to_appear() -> None:
    keys = trl_keys() | trainer_keys()
    assert {"num_tokens", "completions/clipped_ratio", "step_time", "rewards/<name>/mean", "grad_norm"} <= keys
    assert keys - documented() - never() == set()


def test_every_documented_key_is_logged_by_somebody() -> None:
    known = logged().keys() | trl_keys() | trainer_keys()
    assert [key for key in documented() | never() if not any(_matches(name, key) for name in known)] == []
    assert documented() & never() == set()


def test_the_columns_of_a_record_are_documented() -> None:
    from rlvr.rollouts.record import OPTIONAL, _schema

    columns = {field.name for field in _schema([{name: [] for name in (*OPTIONAL, "top_ids", "top_logprobs")}])}
    assert first_cells(tables("## `rollouts/step_*.parquet`", "##")) == columns


def test_the_summary_is_documented() -> None:
    tree = tree_of(ROOT / "rlvr" / "train.py")
    [summary] = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "summary"
        and isinstance(node.value, ast.Dict)
    ]
    keys = {key.value for key in summary.keys if isinstance(key, ast.Constant)}
    assert first_cells(tables("## `summary.json`", "##")) == keys
