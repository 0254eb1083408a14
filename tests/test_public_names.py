"""`import rlvr` is light, and its names resolve when they are used."""

import subprocess
import sys

import pytest

import rlvr


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_no_heavy_module() -> None:
    heavy = "{'torch', 'numpy', 'trl', 'transformers', 'math_verify', 'sympy', 'hydra'}"
    assert fresh(f"import sys, rlvr; print(sorted({heavy} & sys.modules.keys()))") == "[]"


def test_a_version_and_a_listing_load_no_heavy_module_either() -> None:
    code = "import sys, rlvr; print(rlvr.__version__, 'grade' in dir(rlvr), 'torch' in sys.modules)"
    version, listed, torch_loaded = fresh(code).split()
    assert version[0].isdigit()
    assert (listed, torch_loaded) == ("True", "False")


def test_grading_needs_no_torch() -> None:
    code = "import sys, rlvr; rlvr.grade, rlvr.grade_many, rlvr.Verdict, rlvr.UserError; print('torch' in sys.modules)"
    assert fresh(code) == "False"


def test_every_public_name_resolves_to_the_object_of_that_name() -> None:
    assert set(rlvr.__all__) <= set(dir(rlvr))
    for name in rlvr.__all__:
        value = getattr(rlvr, name)
        if name != "__version__":
            assert value.__name__ == name
            assert value.__module__.startswith("rlvr.")
    assert rlvr.__dict__["select_tokens"] is rlvr.select_tokens  # resolved once


def test_every_home_is_listed_for_type_checkers_too() -> None:
    source = open(rlvr.__file__).read()  # noqa: SIM115
    typed = source.split("if TYPE_CHECKING:")[1].split("__all__")[0]
    for name, home in rlvr._HOMES.items():
        line = next(line for line in typed.splitlines() if f"from {home} import" in line and name in line)
        assert line.strip().startswith(f"from {home} import")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("select_token", "did you mean 'select_tokens'?"),
        ("selection", "it is a submodule: write `import rlvr.selection`"),
        ("quux", "public names are RLVRTrainer, TokenSelection"),
    ],
)
def test_an_unknown_name_is_answered_with_what_exists(name: str, hint: str) -> None:
    message = fresh(f"import rlvr\ntry: rlvr.{name}\nexcept AttributeError as error: print(error)")
    assert f"module 'rlvr' has no attribute {name!r}" in message
    assert hint in message
