"""How many files were finished: read, synced or verified. Who waits for a long save can see that it goes on."""


class Progress:
    """A count that only grows.

    Attributes:
        files: finished so far, by any thread; a lost update changes nothing, for only growth is looked at.
    """

    def __init__(self) -> None:
        self.files = 0

    def one_more(self) -> None:
        """A file is finished."""
        self.files += 1


PROGRESS = Progress()
"""Of this process."""
