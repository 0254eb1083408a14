"""Problems from files on this machine."""

from dataclasses import dataclass, field

from rlvr.data.columns import Source
from rlvr.data.reading import read_files
from rlvr.data.table import Table
from rlvr.registry import variant


@variant("data", "files")
@dataclass
class Files(Table):
    """Chosen with `data=files data.train_files=train.jsonl`: JSON Lines, JSON, Parquet or CSV, by suffix.

    The other settings are those of `Table`.

    Attributes:
        train_files: files, folders or globs with the problems to train on.
    """

    train_files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.train_files, str):
            self.train_files = [self.train_files]

    def _train_source(self) -> Source:
        return read_files(self.train_files, "data.train_files")
