"""`rlvr doctor`: the page for a bug report, with what has to be mended, and never a traceback."""

import importlib.metadata
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr import doctor
from rlvr.cli import main

SECONDS = 6
"""Of the processor, which a busy machine does not count; about 2 on a quiet one."""

UNWRITABLE = Path("/proc/rlvr-runs")
"""Nobody can make a file in /proc, the superuser neither."""


def examined(capsys: pytest.CaptureFixture[str], runs: Path) -> tuple[int, list[str]]:
    code = main(["doctor", "--runs", str(runs)])
    return code, capsys.readouterr().out.splitlines()


def test_the_command_is_quick_and_silent_about_a_healthy_machine(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "rlvr.cli", "doctor"], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    assert (done.returncode, done.stderr) == (0, "")
    assert "PROBLEM" not in done.stdout
    assert list(tmp_path.iterdir()) == [], "the file that it tried to write is gone"


def test_versions_devices_and_folders_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = examined(capsys, tmp_path / "not/yet/there")
    assert code == 0
    for package in doctor.PACKAGES:
        assert f"{package} {importlib.metadata.version(package)}" in lines
    assert any(line.startswith("rlvr ") and "Python" in line for line in lines)
    assert any(line.startswith("CPU cores") for line in lines)
    assert ("no GPU that torch can use" in lines) != torch.cuda.is_available()
    assert any(line.startswith("base policy ") for line in lines)
    assert any("not/yet/there: writable" in line and "GiB free" in line for line in lines)
    assert not (tmp_path / "not").exists()


def test_variables_that_change_a_run_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE=1" in examined(capsys, tmp_path)[1]


def test_missing_packages_are_a_problem_unless_they_are_optional(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def without(*missing: str) -> None:
        def found(package: str) -> str:
            if package in missing:
                raise importlib.metadata.PackageNotFoundError(package)
            return version(package)

        monkeypatch.setattr(importlib.metadata, "version", found)

    without("peft", "vllm", "tensorboard")
    code, lines = examined(capsys, tmp_path)
    assert code == 0
    assert "peft not installed (only for model.lora)" in lines
    assert "vllm not installed (only for rollouts.backend=vllm)" in lines
    assert "tensorboard not installed (only for logging.report_to=[tensorboard])" in lines
    without("trl")
    code, lines = examined(capsys, tmp_path)
    assert code == 1
    assert "trl MISSING" in lines
    assert any(line.startswith("PROBLEM: trl is not installed; run make setup") for line in lines)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_that_takes_no_file_is_a_problem_for_the_superuser_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = examined(capsys, UNWRITABLE)
    assert code == 1
    assert any(line.startswith(f"PROBLEM: {UNWRITABLE}: NOT writable") and "set run.dir" in line for line in lines)


def test_a_file_in_the_place_of_the_folder_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").write_text("")
    code, lines = examined(capsys, tmp_path / "runs")
    assert code == 1
    assert any("NOT writable (Not a directory)" in line for line in lines)
    assert examined(capsys, tmp_path / "runs" / "below")[0] == 1


def test_a_full_disk_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 1 << 40, 100 << 20))
    code, lines = examined(capsys, tmp_path)
    assert code == 1
    assert any(line.startswith("PROBLEM: ") and "at least 1 GiB" in line for line in lines)


def test_a_driver_that_fails_is_told_and_not_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA driver initialization failed\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", broken)
    _, lines = examined(capsys, tmp_path)
    assert "torch does not say what it runs on (RuntimeError: CUDA driver initialization failed)" in lines
