"""`rlvr export`: from a checkpoint to a folder that `from_pretrained` loads, with the weights in one piece."""

import shutil
from pathlib import Path
from typing import Any

from rlvr.checkpoints.choosing import newest_good
from rlvr.checkpoints.layout import STAGING, discard, sync_tree
from rlvr.checkpoints.manifest import Manifest, read_manifest, verify
from rlvr.checkpoints.staging import disk_reason
from rlvr.errors import UserError

ADAPTER = "adapter_model.safetensors"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", ADAPTER)
ONLY_FOR_TRAINING = (
    "optimizer", "scheduler", "scaler", "rng_state", "rlvr_state_", "trainer_state", "training_args", "latest",
    "zero_to_",
)  # fmt: skip
"""How the names begin of what a run needs to go on, and nobody else does."""


def checkpoint_of(given: Path) -> Path:
    """The checkpoint that a path stands for: itself, or the newest whole one of a run folder.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    if (given / "config.yaml").is_file():
        found, rejected = newest_good(given / "checkpoints")
        if found is None:
            why = f": {rejected[0].message(None)}" if rejected else ""
            raise UserError(f"{given} has no whole checkpoint{why}; name another folder")
        return found
    if not given.is_dir():
        raise UserError(f"{given} is not a folder; expected a checkpoint, e.g. runs/x/checkpoints/checkpoint-100")
    problems = verify(given)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(f"{given} is no whole checkpoint ({problems[0]}{more}); export another one")
    return given


def wanted(manifest: Manifest) -> list[str]:
    """The files of a checkpoint that `from_pretrained` reads."""
    return [name for name in manifest.files if "/" not in name and not name.startswith(ONLY_FOR_TRAINING)]


def export(given: Path, out: Path) -> tuple[Path, list[str]]:
    """Write the policy of a checkpoint; a kill leaves no half of it.

    Args:
        given: a checkpoint, or a run folder for its newest one.
        out: a folder that is not there yet, or empty.

    Returns:
        The checkpoint, and the names of the files written.

    Raises:
        UserError: if the checkpoint is damaged, has no weights, or `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; choose another one")
    checkpoint = checkpoint_of(given)
    manifest = read_manifest(checkpoint)
    staging = out.absolute().parent / f"{STAGING}-{out.name}"
    discard(staging)
    try:
        staging.mkdir(parents=True)
        for name in wanted(manifest):
            shutil.copyfile(checkpoint / name, staging / name)
        if not any(name in manifest.files for name in WEIGHTS):
            _consolidate(checkpoint, staging, manifest)
        sync_tree(staging)
        if out.exists():
            out.rmdir()
        staging.rename(out)
    except Exception as error:
        shutil.rmtree(staging, ignore_errors=True)
        reason = disk_reason(error)
        if reason is None or isinstance(error, UserError):
            raise
        raise UserError(f"{out} could not be written ({reason}); make room, or choose another disk") from error
    return checkpoint, sorted(path.name for path in out.iterdir())


def _consolidate(checkpoint: Path, out: Path, manifest: Manifest) -> None:
    """Put the shares of all ranks together, in the dtype that the policy was trained in.

    Raises:
        UserError: if there are no shares, or they do not make up the model.
    """
    if "latest" not in manifest.files:
        raise UserError(f"{checkpoint} has neither {WEIGHTS[0]} nor shares of DeepSpeed; nothing to export")
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_config(config)
    load_shares(checkpoint, model)
    model.save_pretrained(out)


def load_shares(checkpoint: Path, model: Any) -> None:
    """The weights of a checkpoint of DeepSpeed, from the float32 shares of its ranks, into a model.

    Raises:
        UserError: if weights are missing there, or unknown here.
    """
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint))
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    result = model.load_state_dict(state, strict=False)
    lost = [name for name in result.missing_keys if name not in tied]
    if lost or result.unexpected_keys:
        raise UserError(
            f"{checkpoint} does not hold the weights of its config.json: {[*lost, *result.unexpected_keys][0]} is "
            f"{'missing' if lost else 'unknown'}; export it with the versions it was written with"
        )


def run(given: Path, out: Path) -> None:
    """The command: export, and say what was written."""
    checkpoint, names = export(given, out)
    size = sum((out / name).stat().st_size for name in names) / 2**20
    print(f"{checkpoint} -> {out}: {', '.join(names)} ({size:,.1f} MiB)")
