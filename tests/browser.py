"""Chromium for the tests of pages, and what a page asks for or complains about."""

from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-default-apps", "--disable-extensions", "--disable-sync", "--no-first-run", "--metrics-recording-only",
]  # fmt: skip
SHOWN = "article.completion:not([hidden])"

OVERLAPS = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
  const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  const frame = svg.getBoundingClientRect();
  const out = texts.filter(([, a]) => a.right > frame.right + 1 || a.left < frame.left - 1).map(([name]) => name);
  return out.concat(texts.flatMap(([name, a], i) => texts.slice(i + 1)
    .filter(([, b]) => a.left < b.right && b.left < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom)
    .map(([other]) => `${name} | ${other}`)));
})"""


class Visit:
    """An open page, and everything it asked for or complained about."""

    def __init__(self, browser: Any, report: Path, scheme: str = "light", width: int = 1280) -> None:
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def shown(self) -> list[tuple[str, str]]:
        """(step, verdict) of the completions to be seen."""
        cards = self.page.query_selector_all(SHOWN)
        return [(card.get_attribute("data-step"), card.get_attribute("data-verdict")) for card in cards]

    def check_readable(self, path: Path, figures: int) -> None:
        """Assert that the page asked for itself alone, complained of nothing, and lays no text on another."""
        width = self.page.viewport_size["width"]
        assert self.said == []
        assert self.requests == [path.as_uri()]
        assert self.page.locator("figure svg").count() == figures
        assert self.page.evaluate(OVERLAPS) == []
        assert self.page.evaluate("document.documentElement.scrollWidth") <= width
