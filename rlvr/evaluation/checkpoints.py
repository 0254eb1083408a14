"""Which models are evaluated, and what identifies their weights."""

import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from rlvr.assets import base_policy_path
from rlvr.errors import UserError
from rlvr.run_folder import RunFolder

WEIGHTS = ("*.safetensors", "*.bin")
OTHERS = ("config.json", "adapter_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens*", "*.jinja",
          "chat_template*", "generation_config.json")  # fmt: skip
CHUNK = 1 << 22
NAMES = 5
"""Folders that an error names at most."""


@dataclass(frozen=True)
class Checkpoint:
    """One model.

    Attributes:
        label: what people call it: the path as given, a hub id, or `builtin`.
        path: what `from_pretrained` loads.
        step: optimizer step, where the name says it.
        run: the run folder it belongs to, if any.
    """

    label: str
    path: str
    step: int | None = None
    run: Path | None = None


def _in_run(path: Path) -> Path | None:
    """The run folder around `checkpoints/checkpoint-N`."""
    is_checkpoint = path.parent.name == "checkpoints" and RunFolder(path.parent.parent).config.exists()
    return path.parent.parent if is_checkpoint else None


def _from_folder(path: Path) -> Checkpoint:
    step = re.fullmatch(r"(?:checkpoint|global_step|step|iter)[-_]?(\d+)", path.name)
    return Checkpoint(path.as_posix(), str(path), int(step.group(1)) if step else None, _in_run(path))


def is_model(path: Path) -> bool:
    """Whether a folder is one that `from_pretrained` loads."""
    return (path / "config.json").is_file() or (path / "adapter_config.json").is_file()


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return RunFolder(path).config.is_file() and not is_model(path)


def complete_checkpoints(run: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, by step."""
    return [_from_folder(path) for path in RunFolder(run).complete_checkpoints()]


def find_checkpoints(given: Sequence[str], watch: bool = False, again: bool = False) -> list[Checkpoint]:
    """The models that a setting stands for, each once, in order; checkpoints of a run by their step.

    Args:
        given: folders, globs, run folders, hub ids, `builtin`.
        watch: a run may have no complete checkpoint yet.
        again: they were found before, and a run may have removed checkpoints since.

    Raises:
        UserError: for a path that is none, or a run without a complete checkpoint.
    """
    found: list[Checkpoint] = []
    for text in given:
        if text == "builtin":
            found.append(Checkpoint("builtin", str(base_policy_path())))
        else:
            found += _find(text, watch, again)
    return list(dict.fromkeys(found))


def find_runs(given: Sequence[str]) -> list[Path]:
    """The run folders among what a setting stands for."""
    return [folder for text in given for folder in _matches(text) if is_run(folder)]


def _matches(text: str) -> list[Path]:
    """The paths that a path or glob stands for, checkpoint-9 before checkpoint-10."""
    path = Path(text).expanduser()
    if glob.has_magic(text):
        return sorted((Path(match) for match in glob.glob(str(path))), key=_by_number)
    return [path]


def _is_half(path: Path) -> bool:
    """Whether a folder is a checkpoint that a run has not finished writing."""
    run = _in_run(path)
    return run is not None and path not in RunFolder(run).complete_checkpoints()


def _find(text: str, watch: bool, again: bool) -> list[Checkpoint]:
    path = Path(text).expanduser()
    if glob.has_magic(text):
        chosen = [folder for folder in _matches(text) if (is_model(folder) or is_run(folder)) and not _is_half(folder)]
        if not chosen and not again:
            raise UserError(
                f"model={text} matches no model; expected folders that from_pretrained loads, or run folders"
            )
    elif path.is_dir():
        chosen = [path]
    elif again and _in_run(path) is not None:
        chosen = []
    elif text.startswith((".", "/", "~")) or text.count("/") != 1 or _holds_runs(path.parent):
        raise UserError(
            f"model={text} does not exist; expected a folder, a glob, a run folder, a hub id or builtin{_beside(path)}"
        )
    else:
        return [Checkpoint(text, text)]
    return [checkpoint for folder in chosen for checkpoint in _in_folder(folder, watch)]


def _in_folder(folder: Path, watch: bool) -> list[Checkpoint]:
    if is_model(folder):
        return [_from_folder(folder)]
    if not is_run(folder):
        raise UserError(f"model={folder} is neither a model nor a run; expected config.json or config.yaml in it")
    complete = complete_checkpoints(folder)
    if not complete and not watch:
        raise UserError(f"model={folder} has no complete checkpoint yet; wait for one, or add watch=true")
    return complete


def _holds_runs(folder: Path) -> bool:
    """Whether a folder holds runs, or sweeps of runs: its name before a slash is then no owner of the hub."""
    return any(True for depth in ("*", "*/*") for _ in folder.glob(f"{depth}/config.yaml"))


def _beside(path: Path) -> str:
    """The models, runs and sweeps that stand where a path was looked for, the likeliest first; empty for none."""
    places = [place for place in path.parent.glob("[!.]*") if place.is_dir()]
    names = sorted(
        place.name for place in places if is_model(place) or is_run(place) or any(place.glob("*/config.yaml"))
    )
    near = get_close_matches(path.name, names, n=NAMES)
    shown = [*near, *(name for name in names if name not in near)][:NAMES]
    more = ", ..." if len(names) > len(shown) else ""
    return f"; {path.parent} has {', '.join(shown)}{more}" if shown else ""


def _by_number(path: Path) -> list[tuple[int, int | str]]:
    """Order in which checkpoint-9 comes before checkpoint-10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path.as_posix())]


def checkpoint_hash(path: str, revision: str | None = None) -> str:
    """What identifies a model: 16 hex digits of sha256 over its weights, configuration and tokenizer.

    Args:
        path: a folder, or a hub id, whose files are fetched or taken from the local cache.
        revision: of a hub id.

    Raises:
        UserError: if there are no weights, they go meanwhile, or the hub cannot be reached.
    """
    folder = Path(path) if Path(path).is_dir() else _fetched(path, revision)
    weights = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    if not weights:
        raise UserError(f"model={path} holds no weights; expected *.safetensors or *.bin files")
    digest = hashlib.sha256()
    try:
        for file in weights + sorted({file for pattern in OTHERS for file in folder.glob(pattern)} - set(weights)):
            if file.name in ("training_args.bin", "optimizer.bin", "scheduler.bin"):
                continue
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
    except FileNotFoundError as error:
        raise UserError(
            f"model={path} lost {Path(error.filename).name} while it was read; expected a folder that stays: name "
            "another one, or watch the run that removes it with watch=true"
        ) from None
    return digest.hexdigest()[:16]


def _fetched(path: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=[*WEIGHTS, *OTHERS]))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model={path} is no folder here, and the hub does not give it ({reason}); expected a folder, or a hub id "
            "and a network"
        ) from None
