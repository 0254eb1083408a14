"""Takes the pictures of the token microscope in `docs/images/`: `python -m tests.report.microscope_pictures RUN`."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from rlvr.report.microscope import build_microscope
from tests.browser import CHROMIUM, QUIET
from tests.source import ROOT

SIZE = {"width": 1280, "height": 940}


def picture(browser: Any, page: Path, scheme: str, file: Path, steps: list[str]) -> None:
    """Open a page, point at the first fork that is kept, and keep what is to be seen.

    Args:
        browser: of Playwright.
        page: the microscope.
        scheme: `light` or `dark`.
        file: the PNG.
        steps: scripts that are run in the page before.
    """
    opened = browser.new_page(color_scheme=scheme, viewport=SIZE)
    opened.goto(page.as_uri())
    opened.wait_for_selector("html[data-ready]")
    opened.wait_for_selector(".t.f.k")
    for step in steps:
        opened.evaluate(step)
    opened.wait_for_timeout(300)
    opened.locator("article:not([hidden]) .t.f.k").first.focus()
    opened.evaluate("scrollTo(0, 0)")
    opened.wait_for_timeout(300)
    opened.screenshot(path=file)
    opened.close()


def main(run: Path) -> None:
    """Three pictures: light, dark, and beside the policy before training."""
    from playwright.sync_api import sync_playwright

    images = ROOT / "docs" / "images"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        alone = build_microscope(run, out=Path(folder) / "alone.html", say=print)
        beside = build_microscope(run, against="builtin", out=Path(folder) / "beside.html", say=print)
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        wrong = "document.querySelector('[data-verdict=wrong]').click()"
        last = "step.value = [...step.options].at(-1).value; step.dispatchEvent(new Event('change'))"
        different = "colour.value = 'difference'; colour.dispatchEvent(new Event('change'))"
        highlight = "[...document.querySelectorAll('#list button')].find((one) => one.textContent === '2').click()"
        for page, scheme, name, steps in (
            (alone, "light", "microscope.png", [highlight]),
            (alone, "dark", "microscope_dark.png", [wrong]),
            (beside, "light", "microscope_against.png", [last, different]),
        ):
            picture(browser, page, scheme, images / name, steps)
            print(images / name, f"{(images / name).stat().st_size // 1000} kB")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
