"""The page in a browser, opened from the disk: it asks for nothing, obeys mouse and keyboard, and stays inert."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr.report.page import build_report
from tests.browser import SHOWN, Visit
from tests.report.test_page import hostile_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(hostile_run(tmp_path_factory.mktemp("browser") / "run"))


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Visit]:
    opened = Visit(browser, report)
    yield opened
    opened.page.close()


def test_the_page_opens_without_a_complaint_and_asks_for_nothing(visit: Visit, report: Path) -> None:
    visit.page.wait_for_timeout(300)
    assert visit.said == []
    assert visit.requests == [report.as_uri()]
    assert visit.page.locator("figure svg").count() == 6
    assert visit.page.evaluate("document.fonts.size") == 0


def test_filters_and_steps_work_by_mouse(visit: Visit) -> None:
    assert {step for step, _ in visit.shown()} == {"12"}, "the last record comes first"
    visit.page.get_by_role("button", name="wrong", exact=True).click()
    assert set(visit.shown()) == {("12", "wrong")}
    visit.page.get_by_label("step", exact=True).select_option("6")
    assert set(visit.shown()) == {("6", "wrong")}
    visit.page.get_by_role("button", name="correct", exact=True).click()
    assert set(visit.shown()) == {("6", "correct")}
    visit.page.get_by_label("step", exact=True).select_option("")
    visit.page.get_by_role("button", name="all", exact=True).click()
    assert {step for step, _ in visit.shown()} == {"1", "6", "12"}
    assert visit.page.get_by_role("status").first.text_content() == "13 of 13 completions shown"


def test_filters_and_steps_work_by_keyboard(visit: Visit) -> None:
    visit.page.locator("#step").focus()
    visit.page.keyboard.press("ArrowUp")
    assert {step for step, _ in visit.shown()} == {"6"}
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    assert set(visit.shown()) == {("6", "correct")}
    assert visit.page.locator("button[aria-pressed=true]").text_content() == "correct"
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Space")
    assert set(visit.shown()) == {("6", "wrong")}


def test_the_numbers_of_a_token_are_read_by_arrow_keys_and_by_mouse(visit: Visit) -> None:
    card = visit.page.locator(SHOWN).first
    line, detail = card.locator(".tokens"), card.locator(".detail")
    line.focus()
    visit.page.keyboard.press("ArrowRight")
    assert "0.000 nats, p 0.882" in detail.text_content()
    visit.page.keyboard.press("ArrowRight")
    assert "0.333 nats, p 0.882" in detail.text_content()
    assert line.locator(".current").count() == 1
    visit.page.keyboard.press("End")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowLeft")
    assert "1.000 nats" in detail.text_content()
    line.locator(".t").nth(2).hover()
    assert "0.667 nats" in detail.text_content()


def test_kept_tokens_differ_by_weight_line_and_colour(visit: Visit) -> None:
    wanted = "node => { const s = getComputedStyle(node); return [s.fontWeight, s.textDecorationLine, s.color]; }"
    card = visit.page.locator(SHOWN).first
    kept, dropped = (card.locator(f".t{kind}").first.evaluate(wanted) for kind in (".k", ":not(.k)"))
    assert kept[:2] == ["700", "underline"]
    assert dropped[:2] == ["400", "none"]
    assert kept[2] != dropped[2]


def test_hostile_completions_do_nothing(visit: Visit, report: Path) -> None:
    visit.page.get_by_label("step", exact=True).select_option("1")
    card = visit.page.locator(SHOWN).first
    for index in range(card.locator(".t").count()):
        card.locator(".t").nth(index).hover()
    card.locator(".asked").hover()
    assert visit.page.evaluate("window.hacked") is None
    text = card.locator(".tokens").text_content()
    assert "<script>window.hacked=1</script></span><img src=x onerror=window.hacked=2>" in text
    assert "\u2039U+0000\u203a\u2039U+001B\u203a[31m\u2039U+007F\u203a\u2039U+000D\u203a\u2039U+202E\u203a" in text
    assert visit.page.locator("img, iframe, object, embed").count() == 0
    assert visit.page.locator("script").count() == 1
    assert visit.requests == [report.as_uri()]
    assert visit.said == []


def test_a_script_that_is_put_into_the_page_does_not_run(visit: Visit) -> None:
    visit.page.evaluate(
        "() => { const node = document.createElement('script'); node.textContent = 'window.hacked = 4';"
        "document.body.append(node); document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hacked=5>'); }"
    )
    visit.page.wait_for_timeout(200)
    assert visit.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in line for line in visit.said)


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_differ_and_nothing_overflows(
    browser: Any, report: Path, scheme: str, width: int, tmp_path: Path
) -> None:
    visit = Visit(browser, report, scheme, width)
    shot = visit.page.screenshot(path=tmp_path / f"{scheme}_{width}.png", full_page=True)
    assert len(shot) > 20_000
    lightness = "node => getComputedStyle(node)[%r].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    ground = visit.page.locator("body").evaluate(lightness % "backgroundColor")
    ink = visit.page.locator("figure svg text").first.evaluate(lightness % "fill")
    assert (ground > 600 and ink < 200) if scheme == "light" else (ground < 200 and ink > 600)
    wide = (
        "() => [...document.querySelectorAll('body *')].filter(n => n.getBoundingClientRect().right > innerWidth + 1)"
    )
    assert visit.page.evaluate(f"({wide})().map(n => n.tagName + '.' + n.getAttribute('class'))") == []
    visit.page.close()
