"""The page of results in a browser: it asks for nothing, and no two texts of a figure lie on each other."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlvr.evaluation.results_table import show_results
from tests.evaluation.made_scores import made, run_of, written
from tests.report.test_browser import Visit, browser

__all__ = ["browser"]  # the fixture

pytestmark = pytest.mark.slow

OVERLAPS = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  const frame = svg.getBoundingClientRect();
  const out = texts.filter(([, a]) => a.right > frame.right + 1 || a.left < frame.left - 1).map(([name]) => name);
  return out.concat(texts.flatMap(([name, a], i) => texts.slice(i + 1)
    .filter(([, b]) => a.left < b.right && b.left < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom)
    .map(([other]) => `${name} | ${other}`)));
})"""


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
        assert visit.said == []
        assert visit.requests == [page.as_uri()]
        assert visit.page.locator("figure svg").count() == 7
        assert visit.page.evaluate(OVERLAPS) == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        visit.page.close()
