"""The outcomes of a folder: one line of JSON a cell, added whole; a line that a kill has cut is drawn again."""

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr.analysis.forking.cells import CellKey
from rlvr.errors import UserError
from rlvr.evaluation.wording import write_whole


@dataclass(frozen=True)
class Outcomes:
    """What came of one cell: four lists of as many entries as outcomes were drawn.

    Attributes:
        position: of the cell.
        token: of the cell.
        answers: texts; None where no answer was found.
        right: equal to the gold.
        cut: at the length limit.
        tokens: drawn after the branch token.
    """

    position: int
    token: int
    answers: list[str | None]
    right: list[bool]
    cut: list[bool]
    tokens: list[int]

    @property
    def key(self) -> CellKey:
        """Which cell."""
        return CellKey(self.position, self.token)


class Ledger:
    """The folder of one analysis, held by one process at a time.

    Args:
        folder: made if it is not there.

    Raises:
        UserError: if it cannot be written, another process holds it, or a line within it is torn.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "outcomes.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+")
        except OSError as error:
            raise UserError(
                f"--out {folder} cannot be written ({error.strerror}); expected a writable folder"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(
                f"--out {folder} is being written by another process; wait for it, or take another"
            ) from None
        try:
            self.known = {one.key: one for one in self._read()}
        except UserError:
            self._file.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def _read(self) -> Iterable[Outcomes]:
        """All whole lines; what follows the last line break is cut off."""
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                yield Outcomes(**json.loads(line))
            except (ValueError, TypeError):
                raise UserError(
                    f"line {number} of {self.path} is torn; remove that line, and its cell is drawn again"
                ) from None

    def add(self, found: Iterable[Outcomes]) -> None:
        """Keep cells: written and flushed to the disk before this returns.

        Raises:
            UserError: if the disk refuses.
        """
        rows = list(found)
        text = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        try:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); make room and run it again") from None
        self.known.update((row.key, row) for row in rows)

    def settle(self, settings: dict[str, Any]) -> None:
        """Hold the folder to its settings: written at first, compared ever after.

        Args:
            settings: all that the outcomes depend on, as JSON can hold it.

        Raises:
            UserError: for other settings than those of the outcomes that are there.
        """
        path = self.folder / "settings.json"
        wanted = json.loads(json.dumps(settings))
        if not path.exists():
            if self.known:
                raise UserError(f"{self.folder} has outcomes but no settings.json; take another --out")
            write_whole(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
            return
        there = read_json(path)
        different = [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]
        if different:
            name = different[0]
            old, new = (_short(values.get(name)) for values in (there, wanted))
            raise UserError(
                f"--out {self.folder} holds outcomes with {name} {old}, not {new}; "
                "give the same settings as before, or take another --out"
            )


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file.

    Raises:
        UserError: if it holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} cannot be read; expected JSON: take another --out")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
