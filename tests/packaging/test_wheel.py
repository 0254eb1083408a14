"""The wheel, installed and used far from the repository: what it holds, the commands, and the library."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.source import PACKAGE, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHORT_RUN = (
    "run.steps=2", "rollouts.prompts=4", "evaluation.problems=8",
    "logging.progress=none",
)  # fmt: skip
DOOR = """
import rlvr
from rlvr.assets import base_policy_path
from trl import GRPOConfig

def reward(completions, **_):
    return [float(len(text) % 2) for text in completions]

trainer = rlvr.RLVRTrainer(
    model=str(base_policy_path()), reward_funcs=reward, algorithm="dapo_top20",
    args=GRPOConfig("out", use_cpu=True, bf16=False, report_to="none", max_steps=1, save_strategy="no",
                    max_completion_length=8, num_generations=4, per_device_train_batch_size=8),
    train_dataset=[{"prompt": f"{first}+{second}="} for first in range(1, 5) for second in range(1, 5)],
)
trainer.train()
print("SELECTION", trainer.algorithm.selection.name, trainer.algorithm.selection.keep, trainer.state.global_step)
"""


def files_below(folder: Path) -> set[str]:
    """The files of a folder by relative path, without what Python caches."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run([sys.executable, *build], check=True, capture_output=True, text=True)
    [built] = out.glob("rlvr-*.whl")
    return built


class Installed:
    """An environment that has the wheel, and the dependencies of this one without its editable install.

    This environment's packages are reached by a path file, and path files below such a path are not read: the one that
    makes this checkout importable is not.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self.elsewhere, self.wheel = folder / "venv", folder / "elsewhere", wheel
        self.elsewhere.mkdir()
        venv.create(self.folder, symlinks=True)
        self.bin = self.folder / ("Scripts" if os.name == "nt" else "bin")
        done = self.pip("--no-deps", str(wheel))
        assert done.returncode == 0, done.stderr
        [packages] = self.folder.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments: str) -> subprocess.CompletedProcess:
        """`pip install` into the environment, with the tested versions and nothing downloaded."""
        command = ["-m", "pip", "--python", str(self.bin / "python"), "install", "--no-index"]
        pins = ["-c", str(ROOT / "constraints.txt")]
        return subprocess.run([sys.executable, *command, *pins, *arguments], capture_output=True, text=True)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess:
        """A program of the environment, in an empty folder."""
        hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        clean = {name: value for name, value in os.environ.items() if name not in hidden}
        return subprocess.run(
            [str(self.bin / program), *arguments], capture_output=True, text=True, cwd=self.elsewhere, env=clean
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_the_wheel_holds_the_package_its_configurations_and_nothing_else(wheel: Path) -> None:
    expected = {f"rlvr/{name}" for name in files_below(PACKAGE)}
    expected |= {f"rlvr/_configs/{name}" for name in files_below(ROOT / "configs")}
    expected |= {f"rlvr/_configs/recipes/{name}" for name in files_below(ROOT / "recipes")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    for needed in (
        "rlvr/_configs/algorithm/dapo_top20.yaml", "rlvr/_configs/recipes/README.md",
        "rlvr/assets/base_policy/model.safetensors", "rlvr/report/templates/report.html.j2",
    ):  # fmt: skip
        assert needed in held


def test_the_wheel_is_what_is_imported_and_its_requirements_are_met(installed: Installed) -> None:
    done = installed.run("python", "-c", "import rlvr; print(rlvr.__file__); print(rlvr.__version__)")
    assert done.returncode == 0, done.stderr
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(installed.folder)
    assert version in installed.wheel.name
    requirements = installed.pip("--dry-run", f"{installed.wheel}[lora]")
    assert requirements.returncode == 0, requirements.stderr


def test_a_run_and_its_report_need_the_wheel_only(installed: Installed) -> None:
    done = installed.run("rlvr", "train", *SHORT_RUN, "run.name=short")
    assert done.returncode == 0, done.stderr
    folder = installed.elsewhere / "runs" / "short"
    assert json.loads((folder / "summary.json").read_text())["steps"] == 2
    (folder / "report.html").unlink()
    done = installed.run("rlvr", "report", "runs/short")
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").stat().st_size > 10_000


def test_a_plan_is_made_from_the_shipped_configurations(installed: Installed) -> None:
    done = installed.run("rlvr", "plan", "algorithm=dr_grpo", "reward=dapo", *SHORT_RUN)
    assert done.returncode == 0, done.stderr
    assert "4 prompts * 8 completions = 32 rows" in done.stdout


def test_the_shipped_recipes_are_known(installed: Installed) -> None:
    names = sorted(
        path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in (ROOT / "recipes").rglob("*.yaml")
    )
    done = installed.run("rlvr", "train", "recipe=no_such_recipe")
    assert done.returncode == 2
    listed = f"known are {', '.join(names)}" if names else "none exists yet"
    assert done.stderr.strip().endswith(listed)
    for name in names:
        if name.endswith("/smoke"):
            done = installed.run("rlvr", "train", f"recipe={name}", "run.name=smoke", "run.overwrite=true")
            assert done.returncode == 0, f"{name}: {done.stderr}"


def test_the_library_knows_named_algorithms(installed: Installed) -> None:
    done = installed.run("python", "-c", DOOR)
    assert done.returncode == 0, done.stderr
    assert "SELECTION top_entropy 0.2 1" in done.stdout
