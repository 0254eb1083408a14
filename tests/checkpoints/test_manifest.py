"""Every change of a committed checkpoint is found, with the file and the reason."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.checkpoints.choosing import newest_good
from rlvr.checkpoints.layout import files_in
from rlvr.checkpoints.manifest import NAME, FileRecord, Manifest, parse_manifest, read_manifest, verify
from rlvr.checkpoints.staging import commit
from tests.checkpoints.folders import FILES, MEMORY, content, flip, save


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoint-4 and checkpoint-6."""
    folder = tmp_path_factory.mktemp("whole")
    save(folder, 4, "old")
    save(folder, 6)
    return folder


@pytest.fixture
def checkpoints(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "checkpoints"))


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


def swap_bytes(path: Path) -> None:
    """The same size and the same sum of bytes."""
    data = path.read_bytes()
    path.write_bytes(data[1:2] + data[0:1] + data[2:])


def link(path: Path) -> None:
    """The same content, in a place where nobody vouches for it."""
    elsewhere = next(parent for parent in path.parents if parent.name == "checkpoints").parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


MUTATIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "first_bit": (lambda path: flip(path, 0), "digest differs"),
    "middle_bit": (lambda path: flip(path, path.stat().st_size // 2, 3), "digest differs"),
    "last_bit": (lambda path: flip(path, -1, 7), "digest differs"),
    "two_bytes_swapped": (swap_bytes, "digest differs"),
    "truncated_by_one": (lambda path: cut(path, path.stat().st_size - 1), "size differs"),
    "truncated_by_half": (lambda path: cut(path, path.stat().st_size // 2), "size differs"),
    "emptied": (lambda path: cut(path, 0), "size differs: 0 bytes"),
    "longer": (append, "size differs"),
    "deleted": (Path.unlink, "missing"),
    "a_link": (link, "not a regular file"),
}


def check_refused(checkpoints: Path, name: str, reason: str) -> None:
    """The damaged one is named with file and reason, and the one before it is used."""
    problems = verify(checkpoints / "checkpoint-6")
    assert len(problems) == 1
    assert problems[0].startswith(f"{name}: {reason}")
    chosen, rejected = newest_good(checkpoints)
    assert chosen == checkpoints / "checkpoint-4"
    assert [(path.name, reasons) for path, reasons in rejected] == [("checkpoint-6", problems)]


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", FILES)
def test_every_change_of_every_file_is_refused(name: str, mutation: str, checkpoints: Path) -> None:
    change, reason = MUTATIONS[mutation]
    change(checkpoints / "checkpoint-6" / name)
    check_refused(checkpoints, name, reason)


@pytest.mark.parametrize("mutation", sorted(MUTATIONS.keys() - {"a_link"}))
def test_every_change_of_the_manifest_is_refused(mutation: str, checkpoints: Path) -> None:
    change, _ = MUTATIONS[mutation]
    change(checkpoints / "checkpoint-6" / NAME)
    check_refused(checkpoints, NAME, "missing" if mutation == "deleted" else "")


EXTRA = ["extra.bin", ".hidden", "global_step4/extra.pt", "other/extra.pt", "model.safetensors~"]
NO_MANIFEST = ["", "[]", "null", "{}", '{"version": 1}', '{"version": 1, "files": 3}', "[" * 100_000, "1" * 5000]


@pytest.mark.parametrize("name", EXTRA)
def test_an_extra_file_is_refused(name: str, checkpoints: Path) -> None:
    path = checkpoints / "checkpoint-6" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    check_refused(checkpoints, name, "not in the manifest")


def test_two_files_that_changed_places_are_both_refused(checkpoints: Path) -> None:
    folder = checkpoints / "checkpoint-6"
    a, b, c = folder / "rng_state_0.pth", folder / "rng_state_1.pth", folder / "c"
    a.write_bytes(b.read_bytes()[: a.stat().st_size])  # of the same size
    a.rename(c), b.rename(a), c.rename(b)
    assert [line.split(":")[0] for line in verify(folder)] == ["rng_state_0.pth", "rng_state_1.pth"]


def test_every_bit_of_the_manifest_counts() -> None:
    # Exponents and hex digits are where two texts mean the same.
    text = Manifest(6, {"a.pt": FileRecord(3, "ab" * 32)}, {"lr": 1e-22, "big": 1e22, "name": "Ä", "x": None}).text()
    assert "1e-22" in text
    for byte in range(len(text)):
        for bit in range(8):
            data = bytearray(text.encode())
            data[byte] ^= 1 << bit
            with pytest.raises(ValueError, match=r"^(unreadable|unknown version|digest differs)"):
                parse_manifest(bytes(data))
    assert parse_manifest(text.encode()).step == 6


def test_the_manifest_holds_what_anyone_can_compute(whole: Path) -> None:
    raw = json.loads((whole / "checkpoint-6" / NAME).read_text())
    data = content("optimizer.pt", "new")
    assert raw["files"]["optimizer.pt"] == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert sorted(raw["files"]) == sorted(FILES)
    assert (raw["version"], raw["step"], raw["facts"]) == (1, 6, {"which": "new", "world_size": 2})
    read = read_manifest(whole / "checkpoint-6")
    assert read.size == sum(len(content(name, "new")) for name in FILES)


def test_an_unknown_version_is_named_whatever_else_it_holds(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"version": 2, "shards": []}')
    assert verify(tmp_path) == [f"{NAME}: unknown version 2; this program reads version 1"]


@pytest.mark.parametrize("text", NO_MANIFEST, ids=range(len(NO_MANIFEST)))
def test_what_is_no_manifest_is_unreadable(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    assert len(verify(tmp_path)) == 1
    assert verify(tmp_path)[0].startswith(f"{NAME}: unreadable")


def test_a_folder_or_nothing_in_its_place(tmp_path: Path) -> None:
    assert verify(tmp_path) == [f"{NAME}: missing: the checkpoint was not finished, or is older than manifests"]
    (tmp_path / NAME).mkdir()
    assert verify(tmp_path) == [f"{NAME}: cannot be read (Is a directory)"]


@pytest.mark.parametrize("fact", [float("nan"), float("inf"), {1, 2}, Path("x")])
def test_facts_that_are_no_json_are_refused(fact: object) -> None:
    with pytest.raises(ValueError, match=r"facts of a checkpoint cannot be recorded \(.*expected JSON, None for NaN"):
        Manifest(1, {}, {"fact": fact}).text()


def test_facts_come_back_as_json_whatever_the_kind_of_their_keys(tmp_path: Path) -> None:
    # As numbers 9 < 10, as texts "10" < "9": the order must be that of what is read back.
    (tmp_path / NAME).write_text(Manifest(1, {}, {"seeds": {9: (1, 2), 10: "ä"}}).text())
    assert read_manifest(tmp_path).facts == {"seeds": {"9": [1, 2], "10": "ä"}}


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..", NAME) and len(name.encode()) < 100
)
trees = st.dictionaries(st.lists(names, min_size=1, max_size=2).map(tuple), st.binary(max_size=50), max_size=5)


@settings(max_examples=50)
@given(trees, st.data())
def test_what_is_committed_verifies_and_no_more_after_any_flip(
    tree: dict[tuple[str, ...], bytes], data: st.DataObject
) -> None:
    tree = {parts: value for parts, value in tree.items() if parts[:1] not in tree or len(parts) == 1}
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        staging, final = Path(place, "staging"), Path(place, "checkpoint-1")
        staging.mkdir()
        for parts, value in tree.items():
            path = staging.joinpath(*parts)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(value)
        manifest = commit(staging, final, {})
        sizes = {"/".join(parts): len(value) for parts, value in tree.items()}
        assert {name: record.size for name, record in manifest.files.items()} == sizes
        assert verify(final) == []
        path = data.draw(st.sampled_from([path for path in files_in(final).values() if path.stat().st_size]))
        flip(path, data.draw(st.integers(0, path.stat().st_size - 1)), data.draw(st.integers(0, 7)))
        assert len(verify(final)) == 1
