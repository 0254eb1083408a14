"""The commit record of a checkpoint: `MANIFEST.json`, with the size and SHA-256 of every other file, and facts.

Promise: `verify` finds every file that is missing, damaged or foreign. A changed byte of the manifest itself is found
as well: it holds the SHA-256 of its own content, and has to be, byte for byte, what is written for that content.
This guards against accidents, not against people: who changes a file can write a new manifest.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rlvr.checkpoints.layout import files_in, sync_file
from rlvr.checkpoints.progress import PROGRESS

NAME = "MANIFEST.json"
PARTIAL = "MANIFEST.json.partial"
VERSION = 1
THREADS = 8
"""Files hashed at a time at most; hashing leaves the interpreter's lock."""


class FileRecord(NamedTuple):
    """What is recorded of a file: its size in bytes and its SHA-256 in hex digits."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes:
        step: optimizer steps made.
        files: by path relative to the checkpoint, with `/`.
        facts: what a resume compares or takes over, as JSON: world size, fingerprints, versions, a run id, metrics.
        version: of this format.
    """

    step: int
    files: dict[str, FileRecord]
    facts: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def text(self) -> str:
        """The content of `MANIFEST.json`; the same for equal manifests.

        Raises:
            ValueError: if the facts are no JSON; NaN and infinity are none.
        """
        try:
            facts = json.loads(json.dumps(self.facts, allow_nan=False))  # keys as texts, in the order of texts
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"facts of a checkpoint cannot be recorded ({error}); expected JSON, None for NaN"
            ) from None
        files = {name: record._asdict() for name, record in self.files.items()}
        body = {"version": self.version, "step": self.step, "facts": facts, "files": files}
        digest = hashlib.sha256(_json(body).encode()).hexdigest()
        return _json({**body, "sha256": digest}) + "\n"

    @property
    def size(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(record.size for record in self.files.values())


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False)


def measure(folder: Path, step: int, facts: Mapping[str, Any]) -> Manifest:
    """The manifest of a folder as it stands; files are read in pieces, several at a time.

    Raises:
        ValueError: if something in it is neither file nor folder.
        OSError: if something cannot be read.
    """
    files = {name: path for name, path in files_in(folder).items() if name not in (NAME, PARTIAL)}
    for name, path in files.items():
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(f"{folder / name} is neither a file nor a folder; a checkpoint is copied by its files")
    return Manifest(step, dict(zip(files, _each(_record, list(files.values())), strict=True)), dict(facts))


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        PROGRESS.one_more()
        return FileRecord(file.tell(), digest)


def _each(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `MANIFEST.json`, whole or not at all; the caller syncs the folder."""
    partial = folder / PARTIAL
    partial.write_text(manifest.text(), encoding="ascii")
    sync_file(partial)
    os.replace(partial, folder / NAME)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint; the other files are not looked at.

    Raises:
        ValueError: if it is missing, of another version, or not as it was written; the message is a reason.
    """
    try:
        return parse_manifest((folder / NAME).read_bytes())
    except FileNotFoundError:
        raise ValueError("missing: the checkpoint was not finished, or is older than manifests") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in the bytes of `MANIFEST.json`.

    Raises:
        ValueError: as `read_manifest`.
    """
    try:
        content = json.loads(data)
        version = content["version"]
        manifest = _manifest_of(content) if version == VERSION else None
        as_written = b"" if manifest is None else manifest.text().encode("ascii")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"unreadable ({type(error).__name__}: {error})") from None
    if manifest is None:
        raise ValueError(f"unknown version {version!r}; this program reads version {VERSION}")
    if data != as_written:
        raise ValueError("digest differs: the manifest is not as it was written")
    return manifest


def _manifest_of(content: dict[str, Any]) -> Manifest:
    files = {name: FileRecord(**record) for name, record in content["files"].items()}
    return Manifest(content["step"], files, content["facts"])


def verify(folder: Path) -> list[str]:
    """What is wrong with a checkpoint, each as `file: reason`; nothing if it is as it was committed."""
    try:
        recorded = read_manifest(folder).files
    except ValueError as error:
        return [f"{NAME}: {error}"]
    try:
        present = files_in(folder)
    except OSError as error:
        return [f"{error.filename}: cannot be read ({error.strerror})"]
    problems = {name: "missing" for name in recorded if name not in present}
    problems |= {name: "not in the manifest" for name in present if name not in recorded and name != NAME}
    common = [name for name in recorded if name in present]
    reasons = _each(lambda name: _difference(present[name], recorded[name]), common)
    problems |= {name: reason for name, reason in zip(common, reasons, strict=True) if reason}
    return [f"{name}: {problems[name]}" for name in sorted(problems)]


def _difference(path: Path, recorded: FileRecord) -> str:
    """How a file differs from its record, cheapest first; empty if it does not."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size != recorded.size:
            return f"size differs: {status.st_size} bytes, {recorded.size} recorded"
        return (
            "" if _record(path) == recorded else f"digest differs: not the SHA-256 recorded ({recorded.sha256[:12]}...)"
        )
    except OSError as error:
        return f"cannot be read ({error.strerror})"
