"""The page of results in a browser: it asks for nothing, and no two texts of a figure lie on each other."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlvr.evaluation.results_table import show_results
from tests.browser import Visit
from tests.evaluation.made_scores import made, run_of, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    long = "runs/qwen3-8b-dapo-top20-seed1-warmup-and-a-long-name"
    scores = [
        *run_of([3, 6, 9]),
        *run_of([2, 5, 11, 12], run=long),
        made([[1, 0]] * 12),
        *run_of([2, 5], benchmark="b"),
    ]
    ledger = written(folder / "led", [*scores, made([[1, 1]] * 12, temperature=0.6, name="cold")])
    show_results(ledger, Console(quiet=True))
    return ledger / "results.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_is_readable_and_asks_for_nothing(browser: Any, page: Path, scheme: str, width: int) -> None:
    visit = Visit(browser, page, scheme, width)
    try:
        visit.check_readable(page, figures=7)
    finally:
        visit.page.close()
