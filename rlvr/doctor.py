"""What is installed, what is there, what is missing: the page to paste into a bug report."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "datasets", "hydra-core", "math-verify", "wandb")
OPTIONAL = {"peft": "model.lora", "vllm": "rollouts.backend=vllm", "tensorboard": "logging.report_to=[tensorboard]"}
LEAST_FREE_BYTES = 1 << 30


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
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


def _writable(folder: Path) -> tuple[str, bool]:
    """Whether runs can be written there, and how much room is left."""
    parent = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    allowed = os.access(parent, os.W_OK)
    return (
        f"{folder}: {'writable' if allowed else 'NOT writable'}, {free / 2**30:.1f} GiB free",
        allowed and free >= LEAST_FREE_BYTES,
    )


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
            problems.append(f"{package} is not installed; run make setup, or pip install -c constraints.txt rlvr")
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
