"""`rlvr resume-check`: does a run of yours, stopped in the middle and gone on with, end where it would have ended?"""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlvr.checkpoints.layout import checkpoint_name
from rlvr.checkpoints.manifest import read_manifest
from rlvr.config.compose import write_config
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.launch.world import is_rank
from rlvr.run_folder import RunFolder

TIMES = ("seconds", "step_time", "verifier/seconds")
"""How the names of numbers begin that no two runs have alike."""

OF_THE_MOMENT = ("trainer_state.json", "training_args.bin")
"""Files of a checkpoint that hold times or paths."""

ORDER = ("model", "adapter_model", "optimizer", "global_step", "scheduler", "rng_state", "rlvr_state_")
"""What is looked at first: a weight says more than a counter."""

WHOLE, HALVES = "whole", "halves"


def check(config: RunConfig, half: int | None = None, overwrite: bool = False) -> str:
    """Make 2N steps; go on from the checkpoint at step N in new processes, and compare the ends.

    The first N steps are one and the same, so that what differs is the resume's. Rows of metrics are compared without
    times, tensors and counters of the last checkpoints bit by bit.

    Args:
        config: of the run in question; launched as it says.
        half: N; None for the least that stops in the middle of a rollout batch, or 2 where a batch makes one step.
        overwrite: replace the folder of an earlier check.

    Returns:
        What was compared, in a sentence.

    Raises:
        UserError: with the first thing that differs, or why nothing could be compared.
    """
    if is_rank(os.environ):
        raise UserError("RANK is set: resume-check starts the ranks itself; start it once, with launch.processes=N")
    if config.launch.kind == "slurm":
        raise UserError("resume-check waits for its runs; set launch=local, and start it inside an allocation")
    if half is not None and half < 1:
        raise UserError(f"--steps is {half}; expected 1 or more")
    half = half or _middle(config)
    folder = Path(config.run.dir) / f"{config.run.name or config.run.algorithm or 'run'}-resume-check"
    _prepare(folder, overwrite)
    whole, halves = RunFolder(folder / WHOLE), RunFolder(folder / HALVES)
    _train(_checked(config, whole, half), whole, "from its start to its end")
    _first_half(whole, halves, half)
    _train(_checked(config, halves, half, resume=True), halves, f"on from step {half}")
    found = difference(whole, halves, 2 * half)
    if found is not None:
        raise UserError(f"{2 * half} steps are not {half} + {half}: {found}; both runs stand in {folder}")
    names = read_manifest(halves.checkpoints / checkpoint_name(2 * half)).files
    return f"{2 * half} steps equal {half} + {half}, bit for bit: {2 * half} rows of metrics, {len(names)} files"


def _middle(config: RunConfig) -> int:
    steps = config.optimizer.updates_per_rollout * config.optimizer.num_iterations
    return 2 if steps == 1 else steps + steps // 2


def _prepare(folder: Path, overwrite: bool) -> None:
    """An empty folder for the two runs."""
    ours = {f"{name}{ending}" for name in (WHOLE, HALVES) for ending in ("", ".yaml")}
    if folder.exists():
        if not overwrite:
            raise UserError(f"{folder} exists; give --overwrite to check anew, or set run.name")
        strange = sorted({path.name for path in folder.iterdir()} - ours)
        if strange:
            raise UserError(f"{folder} holds {strange[0]}, which is of no check, so it is left alone; set run.name")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _checked(config: RunConfig, folder: RunFolder, half: int, resume: bool = False) -> RunConfig:
    """The configuration of one of the two runs: its updates are the user's, its name and its saves are not."""
    run = dataclasses.replace(
        config.run, name=folder.path.name, dir=str(folder.path.parent), steps=2 * half, save_steps=half, keep_last=0,
        resume=resume, overwrite=False, allow_changes=[],
    )  # fmt: skip
    launch = dataclasses.replace(config.launch, max_restarts=0)
    return dataclasses.replace(
        config, run=run, launch=launch, logging=dataclasses.replace(config.logging, report_to=[])
    )


def _train(config: RunConfig, folder: RunFolder, what: str) -> None:
    """One of the two runs, in processes of its own."""
    source = folder.path.parent / f"{folder.path.name}.yaml"
    write_config(config, source)
    print(f"resume-check: {folder.path.name}, {what}", flush=True)
    settings = ["run.resume=true"] if config.run.resume else []
    command = [sys.executable, "-m", "rlvr.cli", "train", "--from", str(source), *settings]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise UserError(f"the run {folder.path} ended with exit code {code}; what it said stands above")


def _first_half(whole: RunFolder, halves: RunFolder, half: int) -> None:
    """A copy of a run as it stood when its checkpoint in the middle was new."""
    shutil.copytree(whole.path, halves.path)
    shutil.rmtree(halves.checkpoints / checkpoint_name(2 * half))
    for path in (halves.summary, halves.path / "report.html"):
        path.unlink(missing_ok=True)


def difference(one: RunFolder, other: RunFolder, step: int) -> str | None:
    """The first number that two runs do not have alike, in words; None where there is none.

    Args:
        one: the run that was never stopped.
        other: the one that was.
        step: of the checkpoints to compare.

    Raises:
        OSError: if a file of theirs is missing.
    """
    row = _different_row(one.metrics, other.metrics)
    first, second = (folder.checkpoints / checkpoint_name(step) for folder in (one, other))
    names, others = (_names(folder) for folder in (first, second))
    if set(names) != set(others):
        return f"{min(set(names) ^ set(others))} is a file of one checkpoint only"
    digests, files = read_manifest(first).files, read_manifest(second).files
    for name in names:
        if digests[name].sha256 == files[name].sha256:
            continue
        found = _different_value(first / name, second / name)
        if found is not None:
            return f"{name}: {found}" + (f"; the first row of metrics that differs: {row}" if row else "")
    return row and f"the checkpoints are alike, but in metrics.jsonl {row}"


def _names(checkpoint: Path) -> list[str]:
    def rank(name: str) -> tuple[int, str]:
        base = name.rsplit("/", 1)[-1]
        return next((at for at, start in enumerate(ORDER) if base.startswith(start)), len(ORDER)), name

    return sorted((name for name in read_manifest(checkpoint).files if name not in OF_THE_MOMENT), key=rank)


def _different_row(one: Path, other: Path) -> str | None:
    rows, others = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in (one, other)
    )
    for row, twin in zip(rows, others, strict=False):
        for name in {**row, **twin}:
            if not name.startswith(TIMES) and row.get(name) != twin.get(name):
                return f"step {row.get('step')} has {name}={row.get(name)}, then {twin.get(name)}"
    return None if len(rows) == len(others) else f"there are {len(rows)} rows, then {len(others)}"


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix in (".pt", ".pth", ".bin"):
        import torch

        # Written a minute ago by the runs above, by this very code.
        return torch.load(path, map_location="cpu", weights_only=False)
    return path.read_bytes()


def _different_value(one: Path, other: Path) -> str | None:
    """The first value of two files that differs; None where only the way they are packed does."""
    for place, value, twin in _pairs(_read(one), _read(other), ""):
        said = _unlike(value, twin)
        if said is not None:
            return f"{place or 'its content'} {said}"
    return None


def _pairs(value: Any, twin: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Values that stand at the same place of two nested structures."""
    if dataclasses.is_dataclass(value) and type(value) is type(twin):
        value, twin = vars(value), vars(twin)
    if isinstance(value, dict) and isinstance(twin, dict) and set(value) == set(twin):
        for name in value:
            yield from _pairs(value[name], twin[name], f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple) and isinstance(twin, list | tuple) and len(value) == len(twin):
        for index, (part, other) in enumerate(zip(value, twin, strict=True)):
            yield from _pairs(part, other, f"{place}[{index}]")
    else:
        yield place, value, twin


def _unlike(value: Any, twin: Any) -> str | None:
    """In which way two values differ, or None."""
    import torch

    if isinstance(value, torch.Tensor) and isinstance(twin, torch.Tensor):
        if value.dtype != twin.dtype or value.shape != twin.shape:
            return f"is {value.dtype} {tuple(value.shape)}, then {twin.dtype} {tuple(twin.shape)}"
        if torch.equal(value.nan_to_num(), twin.nan_to_num()) and torch.equal(value.isnan(), twin.isnan()):
            return None
        gap = (value.double() - twin.double()).abs()
        return f"differs in {int((gap != 0).sum())} of {gap.numel()} numbers, by {float(gap.max()):.3g} at most"
    # Of a NaN, and of an array, only the bytes say whether they are alike.
    alike = type(value) is type(twin) and pickle.dumps(value) == pickle.dumps(twin)
    return None if alike else f"is {value!r:.60}, then {twin!r:.60}"
