"""Read local files of rows: JSON Lines, JSON, Parquet, CSV."""

import csv
import glob
import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rlvr.data.columns import BATCH_ROWS, ArrowPart, Part, RowsPart, Source
from rlvr.errors import UserError

_CELL_CHARACTERS = 1 << 24  # csv's own limit, 131072, is less than some worked solutions


def _objects(path: Path, values: Sequence[tuple[int, Any]], unit: str) -> RowsPart:
    for number, value in values:
        if not isinstance(value, dict):
            raise UserError(f"{path} {unit} {number} is a {type(value).__name__}; expected an object of column: value")
    return RowsPart(path.name, [value for _, value in values], [number for number, _ in values], unit)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _json_lines(path: Path) -> Part:
    values = []
    # Not splitlines: it also breaks at U+2028, which JSON allows inside a text.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append((number, json.loads(line)))
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path} line {number} is not JSON ({error.msg}, character {error.pos + 1}); expected one object a line"
            ) from None
    return _objects(path, values, "line")


def _json(path: Path) -> Part:
    text = _text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line under the suffix of one document: common on the hub
            return _json_lines(path)
        raise UserError(
            f"{path} line {error.lineno} is not JSON ({error.msg}); expected a list of objects, or one object a line"
        ) from None
    if not isinstance(value, list):
        if isinstance(value, dict) and "\n" not in text.strip():
            return _json_lines(path)  # a file of one line
        raise UserError(f"{path} holds a {type(value).__name__}; expected a list of objects, one a problem")
    return _objects(path, list(enumerate(value, start=1)), "row")


def _csv(path: Path) -> Part:
    """Cells stay text: 007 and 1/2 and 3.10 are golds as they are written."""
    rows, numbers = [], []
    before = csv.field_size_limit(_CELL_CHARACTERS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{path} line {reader.line_num} does not have {len(reader.fieldnames or [])} cells, as the "
                        "first line has; put cells with commas or line breaks in double quotes"
                    )
                rows.append(row)
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise UserError(
            f"{path} line {reader.reader.line_num} is not CSV ({error}); expected a header and quoted cells"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    finally:
        csv.field_size_limit(before)
    return RowsPart(path.name, rows, numbers, "line")


def _parquet(path: Path) -> Part:
    import pyarrow.parquet
    from pyarrow import ArrowException

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a Parquet file ({reason}); expected one that pyarrow reads") from None
    return ArrowPart(
        path.name,
        file.metadata.num_rows,
        list(file.schema_arrow.names),
        lambda name: file.iter_batches(columns=[name], batch_size=BATCH_ROWS),
    )


READERS: dict[str, Callable[[Path], Part]] = {
    ".jsonl": _json_lines, ".json": _json, ".parquet": _parquet, ".csv": _csv,
}  # fmt: skip
"""The reader of a suffix."""


def _matches(given: str, setting: str) -> list[Path]:
    """The files that a path, a folder or a glob stands for, sorted by name."""
    path = Path(given).expanduser()
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.suffix.lower() in READERS and child.is_file())
        if not found:
            raise UserError(f"{setting}={given} is a folder without {', '.join(READERS)} files; expected at least one")
        return found
    if path.is_file():
        if path.suffix.lower() not in READERS:
            raise UserError(f"{setting}={given} ends in {path.suffix or 'nothing'}; expected {', '.join(READERS)}")
        return [path]
    found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    files = [match for match in found if match.is_file() and match.suffix.lower() in READERS]
    if not files:
        raise _missing(given, path, setting)
    return files


def _missing(given: str, path: Path, setting: str) -> UserError:
    siblings = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, siblings, n=1)
    hint = f"; did you mean {path.parent / close[0]}?" if close else ""
    what = "matches no file" if glob.has_magic(given) else "does not exist"
    return UserError(f"{setting}={given} {what}; expected a {', '.join(READERS)} file, a folder or a glob{hint}")


def read_files(paths: Sequence[str], setting: str) -> Source:
    """The rows of files, in the order given; a folder's or a glob's files sorted by name, each file once.

    Args:
        paths: files, folders and globs (`**` for any depth), with `~` for the home folder.
        setting: the key to name in messages, e.g. `data.train_files`.

    Raises:
        UserError: for a missing or unreadable file, with its line where it has lines.
    """
    if not paths:
        raise UserError(f"{setting} is empty; set it to a {', '.join(READERS)} file, a folder or a glob")
    files = list(dict.fromkeys(file for given in paths for file in _matches(given, setting)))
    return Source(f"{setting}={','.join(paths)}", [READERS[file.suffix.lower()](file) for file in files])
