"""Problems from a data set on the Hugging Face hub, or in its local cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlvr.data.columns import BATCH_ROWS, ArrowPart, Source
from rlvr.data.table import Table
from rlvr.errors import UserError
from rlvr.registry import variant


@variant("data", "hub")
@dataclass
class Hub(Table):
    """Chosen with `data=hub data.path=org/name`.

    The other settings are those of `Table`.

    Attributes:
        path: the id of the data set, `org/name`.
        subset: the configuration of the data set, e.g. `main`; None where it has one only.
        split: the split to train on, with `datasets`' slices: `train[:1000]`.
        revision: a branch, tag or commit; None for the newest.
        heldout_split: the split to hold out; None for none.
    """

    path: str = ""
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    heldout_split: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heldout_split and self.heldout_files:
            raise UserError(
                "data.heldout_split and data.heldout_files both say what is held out; set one of them to null or []"
            )
        if self.heldout_split is not None and self.heldout_split == self.split:
            raise UserError(
                f"data.heldout_split is {self.heldout_split}, the training split; expected another, or null and "
                "data.heldout_size"
            )

    def _heldout_setting(self) -> str | None:
        return "data.heldout_split" if self.heldout_split else super()._heldout_setting()

    def _train_source(self) -> Source:
        return self._load(self.split, "data.split")

    def _heldout_source(self) -> Source | None:
        return self._load(self.heldout_split, "data.heldout_split") if self.heldout_split else super()._heldout_source()

    def _load(self, split: str, setting: str) -> Source:
        if not self.path:
            raise UserError("data.path is empty; expected the id of a hub data set, e.g. data.path=openai/gsm8k")
        what = f"data.path={self.path}" + (f" data.subset={self.subset}" if self.subset else "") + f" {setting}={split}"
        try:
            return load_split(self.path, self.subset, split, self.revision, what)
        except LookupError as error:
            raise UserError(f"{what} cannot be loaded: {error}; set data.subset or {setting}") from None
        except ConnectionError as error:
            raise UserError(
                f"{what} cannot be loaded from the Hugging Face hub ({error}); expected a public id, or one you have "
                "access to, and a network: check the name, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE, or download it "
                "elsewhere and use data=files data.train_files=FOLDER"
            ) from None


def load_split(path: str, subset: str | None, split: str, revision: str | None, label: str) -> Source:
    """The rows of a split of a hub data set.

    Args:
        path: `org/name`.
        subset: the configuration of the data set; None where it has one only.
        split: its name, with `datasets`' slices.
        revision: a branch, tag or commit; None for the newest.
        label: what messages call it.

    Raises:
        LookupError: for an unknown subset or split; the message lists those that exist.
        ConnectionError: if the data set cannot be had.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(path, subset, split=split, revision=revision)
    except ValueError as error:
        raise LookupError(_first_line(error)) from None
    except (OSError, RuntimeError, DatasetsError) as error:  # network errors are OSErrors too
        raise ConnectionError(f"{type(error).__name__}: {_first_line(error)}") from None
    return Source(label, [_part(split, rows)])


def _part(split: str, rows: Any) -> ArrowPart:
    """A `datasets.Dataset` by columns, read from its memory-mapped files a batch at a time."""

    def batches(name: str) -> Iterator[Any]:
        for table in rows.select_columns([name]).with_format("arrow").iter(BATCH_ROWS):
            yield from table.to_batches()

    return ArrowPart(split, len(rows), list(rows.column_names), batches)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no reason given"
