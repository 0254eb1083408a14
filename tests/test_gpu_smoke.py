"""The script for a GPU, run small on the CPU."""

import subprocess
from typing import Any

import pytest
import torch

from scripts import gpu_smoke
from tests.source import ROOT


def test_the_tiny_checks_pass_and_print_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_smoke.main(["--tiny"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "| what | value | check |"
    assert all(line.count("|") == 4 for line in printed)
    rows = {cells[1].strip(): (cells[2].strip(), cells[3].strip()) for cells in (line.split("|") for line in printed)}
    assert {"device", "driver", "torch", "transformers", "trl"} <= rows.keys()
    for what in (
        "kernels, gradient, weight: largest difference", "head, sparse: positions projected",
        "selection: tokens on which the masks of bf16 and fp32 agree", "step: kept of voting tokens",
    ):  # fmt: skip
        assert rows[what][1] == "passed"
    sparse, dense = (int(rows[f"head, {name}: positions projected"][0].split()[0]) for name in ("sparse", "dense"))
    assert 0 < sparse < dense == gpu_smoke.TINY.rows * gpu_smoke.TINY.completion


def test_a_check_that_fails_or_raises_is_named_and_the_others_still_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check_broken(sizes: Any, device: Any, found: gpu_smoke.Findings) -> None:
        raise RuntimeError("no kernel | here")

    def check_other(sizes: Any, device: Any, found: gpu_smoke.Findings) -> None:
        found.check("other", "1", True)

    monkeypatch.setattr(gpu_smoke, "CHECKS", (check_broken, check_other))
    assert gpu_smoke.main(["--tiny"]) == 1
    printed = capsys.readouterr().out
    assert "| check broken | RuntimeError: no kernel / here | FAILED |" in printed
    assert "| other | 1 | passed |" in printed


def test_a_head_that_projects_everything_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    import rlvr.trainer.forward

    monkeypatch.setattr(rlvr.trainer.forward, "compacted_head", lambda *_: nullcontext())
    found = gpu_smoke.Findings()
    gpu_smoke.check_head(gpu_smoke.TINY, torch.device("cpu"), found)
    failed = [what for what, _, verdict in found.rows if verdict == "FAILED"]
    assert "head, sparse: positions projected" in failed


def test_kernels_that_differ_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_smoke.plain
    monkeypatch.setattr(gpu_smoke, "plain", lambda inputs: [value + 0.1 for value in right(inputs)])
    found = gpu_smoke.Findings()
    gpu_smoke.check_kernels(gpu_smoke.TINY, torch.device("cpu"), found)
    assert [verdict for _, _, verdict in found.rows] == ["FAILED"] * 4


def test_without_a_gpu_it_says_in_one_line_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_smoke.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gpu_smoke: needs an NVIDIA GPU")
    assert len(said.err.splitlines()) == 1


def test_the_shell_script_calls_it() -> None:
    done = subprocess.run(["bash", "scripts/gpu_smoke.sh", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--tiny" in done.stdout
