"""The rules of the house, read from the source: who imports whom, how long things are, how far TRL is touched."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from tests.source import (
    MODULES,
    PACKAGE,
    ROOT,
    functions,
    imports,
    inside,
    length,
    of_package,
    offenders,
    reached,
    resolve,
    runtime_nodes,
    tree_of,
)  # fmt: skip

FILE_LINES = 300
FUNCTION_LINES = 40
LONG_ON_PURPOSE: dict[str, int] = {}
"""`rlvr/path.py` or `rlvr/path.py:Class.function` -> lines allowed. An entry is a decision: say why next to it."""

OVERRIDES = {
    "__init__", "get_train_dataloader", "_calculate_rewards", "_generate_and_score_completions",
    "_get_per_token_logps_and_entropies", "_prepare_inputs", "_compute_loss", "training_step", "log",
    "_save_checkpoint", "_load_optimizer_and_scheduler",
}  # fmt: skip
"""The methods of TRL's trainer that the seam may override, and so may call through `super()`."""

OVERRIDE_LINES = 300

TRL_PRIVATE = {
    "_CHUNKED_LOGPROB_CHUNK_SIZE",  # tokens the LM head projects at once
    "_get_output_dir",  # where a checkpoint goes
    "_globalstep_last_logged",  # what the next row's loss is divided by
    "_initial_global_step",  # what the mean loss at the end is divided by
    "_metrics",  # what `log` averages
    "_step",  # the slice that is due
    "_tokenize_prompts",  # texts and chats as token ids
    "_tokenizer",  # the padding token
    "_total_loss_scalar",  # the mean loss at the end
    "_tr_loss",  # the loss since the last row
    "_use_triton",  # compact the LM head's positions on the CPU too
}
"""Private names of TRL or Trainer that rlvr/trainer uses besides its overrides: each may change with a release."""


CORE = {
    "rlvr.maths": ("rlvr.maths",),
    "rlvr.advantages": ("rlvr.maths", "rlvr.registry", "rlvr.errors", "rlvr.advantages"),
    "rlvr.selection": ("rlvr.maths", "rlvr.registry", "rlvr.errors", "rlvr.selection"),
    "rlvr.objectives": ("rlvr.maths", "rlvr.registry", "rlvr.errors", "rlvr.objectives"),
}


@pytest.mark.parametrize("package", CORE)
def test_the_algorithms_import_torch_the_maths_and_their_own_package_only(package: str) -> None:
    def forbidden(name: str) -> bool:
        if inside(name, "rlvr"):
            return not inside(name, *CORE[package])
        return name.split(".")[0] not in {"torch", *sys.stdlib_module_names}

    assert of_package(package), f"{package} is missing"
    assert [line for module in of_package(package) for line in offenders(module, forbidden)] == []


@pytest.mark.parametrize("module", ["rlvr", "rlvr.registry", "rlvr.errors"])
def test_what_everything_imports_imports_the_standard_library_only(module: str) -> None:
    assert offenders(module, lambda name: name.split(".")[0] not in sys.stdlib_module_names) == []


def test_rewards_and_data_reach_no_torch_directly_or_through_others() -> None:
    heavy = ("torch", "transformers", "trl")
    chains = [
        " -> ".join(reached(module)[name])
        for module in of_package("rlvr.rewards", "rlvr.data")
        for name in heavy
        if name in reached(module)
    ]
    assert chains == []


def test_only_the_trainer_imports_trl() -> None:
    others = [module for module in MODULES if not inside(module, "rlvr.trainer")]
    assert [line for module in others for line in offenders(module, lambda name: inside(name, "trl"))] == []


def test_rollouts_evaluation_and_analysis_do_not_know_the_trainer() -> None:
    users = of_package(
        "rlvr.rollouts", "rlvr.evaluation", "rlvr.analysis", "rlvr.report", "rlvr.decoding", "rlvr.sampling"
    )
    assert [line for module in users for line in offenders(module, lambda name: inside(name, "rlvr.trainer"))] == []


def test_the_package_imports_nothing_that_is_not_shipped_with_it() -> None:
    outside = ("recipes", "configs", "scripts", "tests")
    assert [line for module in MODULES for line in offenders(module, lambda name: inside(name, *outside))] == []


def test_only_the_command_line_imports_the_command_line() -> None:
    others = [module for module in MODULES if not inside(module, "rlvr.cli", "rlvr.__main__")]
    assert [line for module in others for line in offenders(module, lambda name: inside(name, "rlvr.cli"))] == []


def test_the_reader_of_imports_follows_chains_and_lazy_names() -> None:
    assert reached("rlvr.selection.top_entropy")["torch"][0] == "rlvr.selection.top_entropy"
    assert "rlvr.selection.select" in imports("rlvr.selection.base")
    assert "scripts" not in reached("rlvr")
    assert length(dict(functions(ast.parse('def f():\n    """Doc\n    string."""\n    return 1')))["f"]) == 2


def test_importing_the_package_loads_neither_torch_nor_math_verify() -> None:
    code = "import sys, rlvr; print(sorted({'torch', 'math_verify', 'trl'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def sizes() -> Iterator[tuple[str, int, int]]:
    """(name, lines, budget) of every file and function."""
    for path in MODULES.values():
        name = path.relative_to(ROOT).as_posix()
        yield name, len(path.read_text().splitlines()), FILE_LINES
        for function, node in functions(tree_of(path)):
            yield f"{name}:{function}", length(node), FUNCTION_LINES


def test_files_and_functions_stay_within_their_budget() -> None:
    over = [
        f"{name} has {lines} lines of {LONG_ON_PURPOSE.get(name, budget)}; split it, or enter it in LONG_ON_PURPOSE"
        for name, lines, budget in sizes()
        if lines > LONG_ON_PURPOSE.get(name, budget)
    ]
    assert over == []


def test_exceptions_from_the_budget_are_still_needed() -> None:
    known = {name: (lines, budget) for name, lines, budget in sizes()}
    assert [name for name in LONG_ON_PURPOSE if name not in known or known[name][0] <= known[name][1]] == []


def seam() -> ast.ClassDef:
    """The one class that extends TRL's trainer."""
    path = PACKAGE / "trainer" / "seam.py"
    assert path.exists(), "rlvr/trainer/seam.py is missing: it holds RLVRTrainer, the one subclass of trl.GRPOTrainer"
    subclasses = [
        (module, node)
        for module in of_package("rlvr.trainer")
        for node in ast.walk(tree_of(MODULES[module]))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Trainer") for base in node.bases)
    ]
    assert [(module, node.name) for module, node in subclasses] == [("rlvr.trainer.seam", "RLVRTrainer")]
    assert [ast.unparse(base).split(".")[-1] for base in subclasses[0][1].bases] == ["GRPOTrainer"]
    return subclasses[0][1]


def overrides() -> list[ast.FunctionDef]:
    from trl import GRPOTrainer

    defined = [node for node in seam().body if isinstance(node, ast.FunctionDef)]
    return [node for node in defined if hasattr(GRPOTrainer, node.name)]


def test_the_seam_overrides_only_the_methods_of_the_contract() -> None:
    assert {node.name for node in overrides()} - OVERRIDES == set()


def test_the_seam_replaces_no_attribute_of_trls_trainer() -> None:
    from trl import GRPOTrainer

    plain = [node for node in seam().body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [target for node in plain for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    assert [ast.unparse(target) for target in targets if hasattr(GRPOTrainer, ast.unparse(target))] == []


def test_the_overrides_together_stay_short() -> None:
    lines = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in overrides()}
    assert sum(lines.values()) <= OVERRIDE_LINES, lines


@cache
def trl_private_names() -> frozenset[str]:
    """Private attributes and methods of TRL's trainer and its bases, and private names of TRL's modules."""
    import trl.trainer.utils
    from trl import GRPOTrainer

    names: set[str] = set()
    for cls in GRPOTrainer.__mro__[:-1]:
        names |= set(vars(cls))
        for node in ast.walk(ast.parse(inspect.getsource(inspect.getmodule(cls)))):  # type: ignore[arg-type]
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                names.add(node.attr)
    names |= set(vars(trl.trainer.utils)) | set(vars(inspect.getmodule(GRPOTrainer)))
    return frozenset(name for name in names if name.startswith("_") and not name.startswith("__"))


def private_uses() -> dict[str, str]:
    """TRL's private names in rlvr/trainer, as attributes, imports or strings, with one place each."""
    found: dict[str, str] = {}
    for module in of_package("rlvr.trainer"):
        path = MODULES[module]
        for node in runtime_nodes(tree_of(path)):
            names: list[str] = []
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names = [node.value]  # getattr(trainer, "_name")
            elif isinstance(node, ast.ImportFrom) and inside(resolve(module, node), "trl"):
                private = [part for part in resolve(module, node).split(".") if part.startswith("_")]
                names = private + [alias.name for alias in node.names if alias.name.startswith("_")]
                found.update({name: f"{path.relative_to(ROOT)}:{node.lineno}" for name in names})
                continue
            for name in names:
                if name in trl_private_names():
                    found.setdefault(name, f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_the_trainer_uses_only_the_listed_private_names_of_trl() -> None:
    assert {name: place for name, place in private_uses().items() if name not in TRL_PRIVATE | OVERRIDES} == {}


def test_every_listed_private_name_is_still_used_and_still_exists() -> None:
    assert TRL_PRIVATE - private_uses().keys() == set()
    assert TRL_PRIVATE - trl_private_names() == set()
