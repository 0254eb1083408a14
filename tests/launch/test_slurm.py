"""Runs as Slurm jobs: scripts that stand in for Slurm's commands record what they are asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlvr.cli import main
from rlvr.config.compose import compose, read_config, write_config
from rlvr.errors import UserError
from rlvr.launch.section import LaunchSection
from rlvr.launch.slurm import JOB, TEMPLATE, Site, read_site, render, srun_command
from rlvr.run_folder import RunFolder
from tests.source import ROOT

SITE = """
partition: long
account: maths
time: "24:00:00"
gpus: --gres=gpu:h100:{processes}
sbatch: [--exclusive, --mem=0]
setup: [module load cuda, export NCCL_SOCKET_IFNAME=ib0]
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH for commands, and no trace of a job around this process."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "RANK", "WORLD_SIZE", JOB))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def add(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def submit(*settings: str) -> int:
    return main(
        ["train", "launch=slurm", "launch.nodes=4", "launch.processes=8", "run.dir=runs", "run.name=x", *settings]
    )


def test_a_job_is_rendered_and_handed_to_sbatch(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(commands, "sbatch", 'echo "$@" > asked; echo "Submitted batch job 4711"')
    Path("launch_site.yaml").write_text(SITE)
    assert submit("deepspeed=zero3") == 0
    here = Path.cwd()
    assert Path("asked").read_text().strip() == "runs/x.slurm/job.sh"
    said = capsys.readouterr().out
    assert "submitted job 4711: 4 nodes with 8 processes each" in said
    assert "runs/x.slurm/output-4711.txt" in said
    script = Path("runs/x.slurm/job.sh").read_text()
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert options == [
        "--job-name=x", "--nodes=4", "--ntasks-per-node=8", f"--output={here}/runs/x.slurm/output-%j.txt",
        "--open-mode=append", f"--chdir={here}", "--requeue", "--signal=B:TERM@120", "--partition=long",
        "--account=maths", "--time=24:00:00", "--gres=gpu:h100:8", "--exclusive", "--mem=0",
    ]  # fmt: skip
    assert script.index("module load cuda\nexport NCCL_SOCKET_IFNAME=ib0") < script.index(f"export {JOB}=1")
    assert f"train --from {here}/runs/x.slurm/config.yaml run.resume=false run.overwrite=false &" in script
    config = read_config(Path("runs/x.slurm/config.yaml"))
    assert (config.launch.kind, config.launch.ranks, config.run.name) == ("slurm", 32, "x")
    assert config.deepspeed["zero_optimization"]["stage"] == 3
    assert not Path("runs/x").exists()
    subprocess.run(["bash", "-n", "runs/x.slurm/job.sh"], check=True)


def test_a_job_may_be_written_only(commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(commands, "sbatch", "touch asked")
    assert submit("launch.submit=false") == 0
    assert capsys.readouterr().out == "the job's script is runs/x.slurm/job.sh\n"
    assert not Path("asked").exists()
    assert "--gpus-per-node=8" in Path("runs/x.slurm/job.sh").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["rollouts.prompts=33"], "33"),
        (["data=files", "data.train_files=nowhere.jsonl"], "nowhere.jsonl"),
        (["launch.site=other.yaml"], "launch.site=other.yaml does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_job_is_made(
    settings: list[str], said: str, commands: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(commands, "sbatch", "touch asked")
    assert submit(*settings) == 2
    assert said in capsys.readouterr().err
    assert not Path("asked").exists()


def test_sbatch_that_refuses_or_is_not_there(commands: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    add(commands, "sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    assert submit() == 2
    assert "sbatch refuses runs/x.slurm/job.sh: sbatch: error: invalid partition" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "/nowhere")
    assert submit() == 2
    assert "sbatch is not on PATH; submit runs/x.slurm/job.sh from a login node" in capsys.readouterr().err


def test_a_site_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_site(Path("launch_site.yaml")) == Site()
    Path("site.yaml").write_text("partitoin: long")
    with pytest.raises(UserError, match=r"site.yaml.partitoin is not a field of Site; did you mean partition\?"):
        read_site(Path("site.yaml"))
    Path("site.yaml").write_text("setup: {a: 1}")
    with pytest.raises(UserError, match=r"site.yaml.setup is .*expected a list"):
        read_site(Path("site.yaml"))


@pytest.mark.parametrize("gpus", ["--gres=gpu:{type}:8", "--gres=gpu:{}", "--gpus={", "--gpus={processes.x}"])
def test_a_line_with_other_braces_is_refused(gpus: str, commands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(commands, "sbatch", "touch asked")
    Path("site.yaml").write_text(f"gpus: '{gpus}'")
    assert submit("launch.site=site.yaml") == 2
    said = capsys.readouterr().err
    assert f"launch.site=site.yaml has gpus: {gpus!r}; expected no braces but {{processes}}" in said
    assert not Path("asked").exists()


@pytest.mark.parametrize("path", ["/scratch/Alice/x/checkpoint-8", "/a b/lr=1e-6,x/it's \\'/$HOME/checkpoint-8"])
def test_a_path_to_go_on_from_reaches_the_job_as_it_is(path: str, commands: Path) -> None:
    config = compose(["launch=slurm", "run.name=x"])
    config.run.resume = path
    Path("x.slurm").mkdir()
    write_config(config, Path("x.slurm/config.yaml"))
    lines = [line for line in render(config, Site(), Path("x.slurm")).splitlines() if "rlvr.cli" in line]
    add(commands, "show", 'printf "%s\\0" "$@"')
    shown = subprocess.run(["bash", "-c", f"show {lines[0].removesuffix('&')}"], capture_output=True, text=True)
    given = shown.stdout.split("\0")[:-1]
    source = Path(given[given.index("--from") + 1])
    assert read_config(source, given[given.index("--from") + 2 :]).run.resume == path


def test_a_job_without_srun_says_so(
    commands: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB, "1")
    monkeypatch.setenv("PATH", str(commands))
    assert submit() == 2
    assert "srun is not on PATH, and launch=slurm starts the ranks of a job with it" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_srun_starts_a_task_for_each_rank() -> None:
    assert srun_command(LaunchSection(processes=8, nodes=4), ["python", "x"]) == [
        "srun", "--nodes=4", "--ntasks=32", "--ntasks-per-node=8", "--kill-on-bad-exit=1", "python", "x",
    ]  # fmt: skip


def job(commands: Path, run: str) -> subprocess.Popen:
    """The template as a job whose run is a script of ours."""
    add(commands, "run", run)
    add(commands, "scontrol", 'echo "$@" >> requeued')
    text = TEMPLATE.read_text().replace("${command}", "run").replace("${setup}", "").replace("${options}", "")
    text = text.replace("${job}", JOB).replace("$$", "$")
    Path("job.sh").write_text(text)
    return subprocess.Popen(["bash", "job.sh"], env={**os.environ, "SLURM_JOB_ID": "4711"})


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (2, False), (75, True)])
def test_a_job_goes_back_into_the_queue_after_a_preemption_only(code: int, requeued: bool, commands: Path) -> None:
    assert job(commands, f'test "${JOB}" = 1 || exit 9; exit {code}').wait(20) == code
    assert Path("requeued").exists() is requeued
    if requeued:
        assert Path("requeued").read_text() == "requeue 4711\n"


def test_sigterm_reaches_the_run_and_its_code_is_waited_for(commands: Path) -> None:
    process = job(commands, "trap 'sleep 0.5; exit 75' TERM\ntouch ready\nwhile :; do sleep 0.05; done")
    deadline = time.monotonic() + 20
    while not Path("ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    assert Path("requeued").read_text() == "requeue 4711\n"


def in_job(commands: Path, *settings: str) -> subprocess.Popen:
    """The script of a run as Slurm would run it, with a stand-in for srun."""
    add(commands, "srun", f'exec {sys.executable} {ROOT}/tests/launch/fake_srun.py "$@"')
    add(commands, "scontrol", 'echo "$@" >> requeued')
    small = ["launch.nodes=1", "rollouts.prompts=8", "evaluation.problems=8"]
    assert submit("launch.submit=false", *small, *settings) == 0
    environment = {**os.environ, "SLURM_JOB_ID": "77", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        ["bash", "runs/x.slurm/job.sh"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tasks", [1, 2])
def test_a_job_trains_through_srun(tasks: int, commands: Path) -> None:
    process = in_job(commands, f"launch.processes={tasks}", "run.steps=1")
    out, error = process.communicate()
    assert process.returncode == 0, out + error
    assert ("2 processes; what all but the first print is in" in error) is (tasks == 2)
    assert len(list(Path("runs/x/checkpoints/checkpoint-1").glob("rlvr_state_*.pt"))) == tasks
    assert len(list(Path("runs/x/ranks").glob("*/rank_0001.log"))) == tasks - 1
    assert sorted(path.name for path in Path("runs").iterdir()) == ["x", "x.slurm"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_that_is_asked_to_end_saves_and_goes_back_into_the_queue(commands: Path) -> None:
    process = in_job(commands, "launch.processes=2", "run.steps=1000", "evaluation.every=0")
    metrics = Path("runs/x/metrics.jsonl")
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate()
    assert process.returncode == 75, out + error
    assert "SIGUSR1 came; step" in error
    assert Path("requeued").read_text() == "requeue 77\n"
    (checkpoint,) = RunFolder(Path("runs/x")).complete_checkpoints()
    assert len(list(checkpoint.glob("rlvr_state_*.pt"))) == 2
