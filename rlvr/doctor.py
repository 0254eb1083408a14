"""What is installed, what is there, what is missing: the page to paste into a bug report."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from rlvr.run_folder import nearest_existing

PACKAGES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "datasets", "hydra-core", "math-verify", "wandb")
OPTIONAL = {"peft": "model.lora", "vllm": "rollouts.backend=vllm", "tensorboard": "logging.report_to=[tensorboard]"}
LEAST_FREE_BYTES = 1 << 30


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """What torch runs on; a broken installation is told, not raised."""
    try:
        return _torch_devices()
    except (ImportError, OSError, RuntimeError) as error:
        return [f"torch does not say what it runs on ({type(error).__name__}: {_first_line(error)})"]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def _torch_devices() -> list[str]:
    import torch

    lines = [f"CPU cores {os.cpu_count()}, torch threads {torch.get_num_threads()}"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"GPU {index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if torch.cuda.is_available():
        lines.append(f"CUDA {torch.version.cuda}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}")
    else:
        lines.append("no GPU that torch can use")
    return lines


def _refuses_files(folder: Path) -> str | None:
    """Why a file cannot be made there; None if it can. Only trying tells: permissions do not bind the superuser."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".rlvr-doctor-"):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def _writable(folder: Path) -> tuple[str, bool]:
    """Whether runs can be written there, and how much room is left."""
    try:
        parent = nearest_existing(folder)
        free = shutil.disk_usage(parent).free
    except OSError as error:
        return f"{folder}: NOT writable ({error.strerror})", False
    reason = _refuses_files(parent)
    text = "writable" if reason is None else f"NOT writable ({reason})"
    return f"{folder}: {text}, {free / 2**30:.1f} GiB free", reason is None and free >= LEAST_FREE_BYTES


def examine(runs: Path) -> tuple[list[str], list[str]]:
    """What is there, a line each, and what has to be mended.

    Args:
        runs: the folder that runs are written to.
    """
    from rlvr.assets import base_policy_path
    from rlvr.config.compose import configs_dir, recipes_dir

    lines = [
        f"rlvr {_version('rlvr')}, Python {platform.python_version()}, {platform.platform()}", f"at {sys.prefix}",
    ]  # fmt: skip
    problems = []
    for package in PACKAGES:
        version = _version(package)
        lines.append(f"{package} {version or 'MISSING'}")
        if version is None:
            problems.append(f"{package} is not installed; run make setup")
    for package, purpose in OPTIONAL.items():
        lines.append(f"{package} {_version(package) or f'not installed (only for {purpose})'}")
    lines += _devices()
    for name, folder in (("configs", configs_dir()), ("recipes", recipes_dir())):
        lines.append(f"{name} {folder}")
        if not folder.is_dir():
            problems.append(f"{folder} does not exist; reinstall the package")
    try:
        lines.append(f"base policy {base_policy_path()}")
    except FileNotFoundError as error:
        problems.append(str(error))
    text, fine = _writable(runs)
    lines.append(text)
    if not fine:
        problems.append(f"{text}; a run needs a writable folder with at least 1 GiB: set run.dir")
    shown = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE", "WORLD_SIZE", "WANDB_MODE")
    lines += [f"{name}={os.environ[name]}" for name in shown if name in os.environ]
    return lines, problems
