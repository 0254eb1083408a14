"""The texts of recorded tokens."""

from collections.abc import Sequence
from pathlib import Path

from rlvr.analysis.records import RecordFile
from rlvr.assets import base_policy_path
from rlvr.errors import UserError
from rlvr.report.tokens import Decode, Decoder, load_decoder, token_text
from rlvr.run_folder import RunFolder


def run_of(file: RecordFile) -> RunFolder | None:
    """The run that a record belongs to; None for a file elsewhere."""
    run = RunFolder(file.path.absolute().parent.parent)
    return run if file.path.absolute().parent == run.rollouts.absolute() and run.config.is_file() else None


def decoder_of(files: Sequence[RecordFile], given: str | None = None) -> Decoder:
    """The tokenizer of a record: as given, of the run's newest checkpoint, or of the policy it started from.

    Args:
        files: of one run or none; the first says which.
        given: `builtin`, a folder or a hub id.

    Raises:
        UserError: if the given one cannot be loaded.
    """
    if given is not None:
        place: str | Path = base_policy_path() if given == "builtin" else Path(given).expanduser()
        found = load_decoder([(given, place if Path(place).exists() else given)])
        if found.decode is None:
            raise UserError(f"--tokenizer {given} cannot be loaded; expected a folder or hub id with a tokenizer")
        return found
    run = run_of(files[0])
    return load_decoder([] if run is None else _places(run))


def _places(run: RunFolder) -> list[tuple[str, str | Path]]:
    from rlvr.report.reading import read_run

    places: list[tuple[str, str | Path]] = []
    checkpoint = run.newest_checkpoint()
    if checkpoint is not None:
        places.append((f"checkpoints/{checkpoint.name}", checkpoint))
    start = read_run(run).setting("model", "path") if run.metrics.is_file() else None
    if start == "builtin":
        places.append(("the built-in policy", base_policy_path()))
    elif isinstance(start, str):
        places.append((f"model.path {start}", Path(start).expanduser() if start.startswith("~") else start))
    return places


def text_of(decode: Decode | None, token: int) -> str:
    """A token on one line, in quotes where blanks would be lost; its number where there is no tokenizer."""
    if decode is None:
        return str(token)
    text = token_text(decode([token])).replace("\n", "")
    return repr(text) if text != text.strip() or not text.strip() else text
