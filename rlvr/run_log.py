"""`log.txt` of a run: what libraries say, and a copy of what people are told."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = logging.getLogger("rlvr")


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Libraries speak into `log.txt` for the time being; the terminal is for the run."""
    from transformers.utils import logging as transformers_logging

    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    LOG.setLevel(logging.INFO)
    logging.captureWarnings(True)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
