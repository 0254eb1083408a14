"""The page of a sweep in a browser: it asks for nothing, and no two texts of a figure lie on each other."""

from pathlib import Path
from typing import Any

import pytest

from rlvr.sweep.plan import Arm, Plan
from rlvr.sweep.report import write_report
from tests.browser import Visit
from tests.sweep.fakes import written
from tests.sweep.test_results import end

pytestmark = pytest.mark.slow

ACCURACIES = {
    "keep_0.05": 0.93, "keep_0.1": 0.94, "keep_0.2": 0.955, "keep_0.5": 0.95, "keep_1.0": 0.945, "bottom_80": 0.45,
    "random_20": 0.89, "random_reward": 0.06, "an_arm_with_a_very_long_name-learning_rate_0.00025": 0.9,
}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arms = [
        Arm(name, [f"selection.keep={name[5:]}" if name.startswith("keep") else f"selection={name}"], "keep_1.0")
        for name in ACCURACIES
    ]
    made = written(Plan("sweep", "Why?", None, ["run.steps=20"], [0, 1, 2], arms), tmp_path_factory.mktemp("sweep"))
    for arm, value in ACCURACIES.items():
        for seed in range(3):
            end(made, f"{arm}-seed{seed}", value + 0.01 * (seed - 1) * (len(arm) % 3))
    return write_report(made.path)[1][0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_is_readable_and_asks_for_nothing(browser: Any, page: Path, scheme: str, width: int) -> None:
    visit = Visit(browser, page, scheme, width)
    try:
        visit.check_readable(page, figures=5)
    finally:
        visit.page.close()
