"""The token microscope in a browser, opened from the disk: it asks for nothing, obeys, and texts stay texts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr.report.microscope import build_microscope, render
from rlvr.report.microscope_rows import Sample, Scores, read_samples
from rlvr.report.reading import read_run
from rlvr.report.tokens import Decoder
from tests.browser import SHOWN, Visit
from tests.report.microscope_pages import microscope_run, noise, word_decoder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return microscope_run(tmp_path_factory.mktemp("microscope") / "run")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    return build_microscope(folder, scoring=False)


def reversed_scores(sample: Sample) -> Sample:
    """Another policy, which is certain where the first is not."""
    entropies = sample.scores.entropies
    assert entropies is not None
    top = np.stack([sample.token_ids, sample.token_ids * 0], 1)
    logprobs = np.log(np.tile([0.75, 0.25], (len(top), 1)))
    other = Scores(2 - entropies, logprobs[:, 0], "policy B", top, logprobs, "policy B")
    return replace(sample, against=other)


@pytest.fixture(scope="module")
def beside(folder: Path) -> Path:
    run = read_run(folder)
    samples = [reversed_scores(sample) for sample in read_samples(run, None, 99)[0]]
    path = folder / "beside.html"
    path.write_text(render(run, samples, Decoder(None, "of a test"), "policy B", []), encoding="utf-8")
    return path


class Look(Visit):
    """An open microscope, in a window so high that every completion of a small one is drawn."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light", width: int = 1440, height: int = 3000) -> None:
        super().__init__(browser, path, scheme, width)
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_selector("html[data-ready]", timeout=120_000)
        self.page.wait_for_timeout(200)

    def rows(self) -> list[list[str]]:
        """Token, count, mean entropy and share kept of the list of forks."""
        cells = "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        return self.page.locator("#list tr").evaluate_all(cells)

    def numbers(self) -> dict[str, list[str]]:
        """What is said of the token that is looked at."""
        terms = "lists => lists.flatMap(list => [...list.children].map(node => [node.tagName, node.textContent]))"
        found: dict[str, list[str]] = {}
        for tag, text in self.page.locator("#numbers dl").evaluate_all(terms):
            if tag == "DT":
                found[text] = []
            else:
                found[list(found)[-1]].append(text)
        return found

    def card(self, text: str) -> Any:
        return self.page.locator(f"{SHOWN}[aria-label^='{text}']")


@pytest.fixture
def look(browser: Any, alone: Path) -> Iterator[Look]:
    opened = Look(browser, alone)
    yield opened
    assert opened.said == []
    assert opened.requests == [alone.as_uri()]
    opened.page.close()


@pytest.fixture
def both(browser: Any, beside: Path) -> Iterator[Look]:
    opened = Look(browser, beside)
    yield opened
    assert opened.said == []
    assert opened.requests == [beside.as_uri()]
    opened.page.close()


def test_it_opens_with_the_top_fifth_as_forks(look: Look) -> None:
    # 116 tokens, a fifth are 24. Place k has (k mod 7) / 3 nats: 2 nats 8 times, 5/3 10 times, 4/3 18 times.
    assert look.page.locator("#nats").input_value() == "1.333"
    share = look.page.locator("#share").text_content()
    assert share == "36 forks, 31.0 % of 116 shown tokens; percentile 69.0 of the page"
    assert look.page.locator(f"{SHOWN} .t.f").count() == 36, "all cards are near the window"
    assert sum(int(row[1]) for row in look.rows()) == 36
    assert look.page.locator("#count").text_content() == "12 of 12 completions shown"


def test_the_slider_recolours_and_the_list_follows(look: Look) -> None:
    slider = look.page.locator("#slider")
    slider.focus()
    look.page.keyboard.press("End")
    assert look.page.locator("#nats").input_value() == "2"
    assert look.page.locator(f"{SHOWN} .t.f").count() == 8
    assert {row[2] for row in look.rows()} == {"2.000"}
    assert slider.get_attribute("aria-valuetext").startswith("2.000 nats, percentile 93.1")
    look.page.keyboard.press("Home")
    assert look.page.locator(f"{SHOWN} .t.f").count() == 116
    assert "116 forks, 100.0 % of 116 shown tokens; percentile 0.0" in look.page.locator("#share").text_content()
    look.page.locator("#nats").fill("5")
    look.page.keyboard.press("Enter")
    assert look.page.locator(f"{SHOWN} .t.f").count() == 0
    assert look.page.locator("#more").text_content() == "No token reaches the threshold."
    look.page.locator("#top").click()
    assert look.page.locator("#nats").input_value() == "1.333"


def test_forks_only_takes_the_colour_of_the_others(look: Look) -> None:
    coloured = "nodes => nodes.filter(node => getComputedStyle(node).backgroundColor !== 'rgba(0, 0, 0, 0)').length"
    tokens = look.page.locator(f"{SHOWN} .t")
    before, forks = tokens.evaluate_all(coloured), look.page.locator(f"{SHOWN} .t.f").count()
    look.page.locator("#colour").select_option("forks")
    assert tokens.evaluate_all(coloured) == forks < before


def test_filters_work(look: Look) -> None:
    look.page.get_by_role("button", name="ungraded", exact=True).click()
    assert look.page.locator("#count").text_content() == "2 of 12 completions shown"
    assert [one.get_attribute("class") for one in look.page.query_selector_all(SHOWN)] == ["completion ungraded"] * 2
    look.page.get_by_label("step", exact=True).select_option("6")
    assert look.page.locator("#count").text_content() == "1 of 12 completions shown"
    assert "of 4 shown tokens" in look.page.locator("#share").text_content(), "counts follow the filters"
    look.page.get_by_role("button", name="all", exact=True).click()
    look.page.get_by_label("step", exact=True).select_option("")
    look.page.get_by_label("problem", exact=True).select_option("1")
    shown = look.page.locator(SHOWN)
    assert shown.count() == 4
    assert set(shown.locator(".asked dd:first-of-type").all_text_contents()) >= {"1+1="}
    look.page.get_by_label("problem", exact=True).select_option("")
    look.page.get_by_label("text", exact=True).fill("<SCRIPT>window")
    texts = [card.text_content() for card in look.page.query_selector_all(SHOWN)]
    assert 0 < len(texts) < 12
    assert all("<script>window" in text for text in texts)
    look.page.get_by_label("text", exact=True).fill("no such text anywhere")
    assert look.page.locator("#count").text_content() == "0 of 12 completions shown"


def test_a_listed_token_is_highlighted_and_visited(look: Look) -> None:
    first = look.page.locator("#list button").first
    text = first.text_content()
    first.focus()
    look.page.keyboard.press("Enter")
    assert first.get_attribute("aria-pressed") == "true"
    hits = look.page.locator(f"{SHOWN} .t.hit")
    assert hits.count() >= int(look.rows()[0][1])
    assert set(hits.all_text_contents()) == {text}
    look.page.locator("#next").click()
    assert look.page.locator(".current").all_text_contents() == [text]
    place = look.page.locator("#numbers .note").first.text_content()
    look.page.locator("#next").click()
    assert look.page.locator("#numbers .note").first.text_content() != place
    look.page.locator("#previous").click()
    assert look.page.locator("#numbers .note").first.text_content() == place
    first.click()
    assert hits.count() == 0
    assert look.page.locator("#next").is_disabled()


def test_the_list_can_be_ordered_by_entropy(look: Look) -> None:
    look.page.locator("#nats").fill("0")
    look.page.keyboard.press("Enter")
    counts = [int(row[1]) for row in look.rows()]
    assert counts == sorted(counts, reverse=True)
    look.page.locator("#order").select_option("entropy")
    means = [float(row[2]) for row in look.rows()]
    assert means == sorted(means, reverse=True)
    assert len(means) == len(counts)


def test_a_token_says_its_numbers_by_mouse_and_by_keyboard(look: Look) -> None:
    card = look.card("Completion 0 of step 1,")
    tokens = card.locator(".t")
    tokens.nth(2).hover()
    # Place 2 of `recorded`: entropy 2/3, p e^-0.125 = 0.882, ratio 1.002; not kept, because 2 is no multiple of 3.
    assert look.numbers() == {
        "entropy": ["0.667 nats"], "probability": ["0.882"], "threshold": ["below"], "run": ["dropped"],
        "advantage": ["+1.500"], "KTAE value": ["+0.250"], "importance ratio": ["1.0020"],
    }  # fmt: skip
    assert look.page.locator("#spoken").text_content() == "", "who points is not told aloud"
    rows = look.page.locator("#numbers tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
    )
    assert [row[1] for row in rows] == ["88 %", "8 %", "2 %"]
    assert [row[3] for row in rows] == ["sampled", "", ""]
    assert rows[0][0] == tokens.nth(2).text_content()
    look.page.get_by_label("text", exact=True).focus()
    look.page.keyboard.press("Tab")
    tokens.nth(0).focus()
    look.page.keyboard.press("ArrowRight")
    assert look.numbers()["entropy"] == ["0.333 nats"]
    assert "entropy 0.333 nats, probability 0.882" in look.page.locator("#spoken").text_content()
    look.page.keyboard.press("End")
    look.page.keyboard.press("ArrowRight")
    assert "token 12 of 12, completion 0 of step 1" in look.page.locator("#numbers").text_content()
    look.page.keyboard.press("Home")
    look.page.keyboard.press("ArrowLeft")
    assert "token 1 of 12" in look.page.locator("#numbers").text_content()


def test_the_keyboard_reaches_every_completion_and_fork(look: Look) -> None:
    tokens = look.card("Completion 0 of step 1,").locator(".t")
    tokens.nth(3).focus()
    place = look.page.locator("#numbers .note").first
    look.page.keyboard.press("PageDown")
    assert place.text_content() == "token 1 of 12, completion 1 of step 1"
    look.page.keyboard.press("PageUp")
    assert place.text_content() == "token 1 of 12, completion 0 of step 1"
    look.page.keyboard.press("f")
    assert look.numbers()["threshold"] == ["a fork"]
    assert place.text_content() == "token 5 of 12, completion 0 of step 1", "4/3 nats is the first at the threshold"
    look.page.keyboard.press("f")
    look.page.keyboard.press("Shift+F")
    assert place.text_content() == "token 5 of 12, completion 0 of step 1"
    line = look.card("Completion 0 of step 1,").locator(".tokens")
    assert line.locator("[tabindex='0']").count() == 1, "one stop of the Tab key a line"
    focused = "document.activeElement.textContent"
    assert look.page.evaluate(focused) == tokens.nth(4).text_content()
    outline = look.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    look.page.keyboard.press("ArrowDown")
    below = place.text_content()
    assert below != "token 5 of 12, completion 0 of step 1"
    look.page.keyboard.press("ArrowUp")
    assert int(place.text_content().split(" ")[1]) < int(below.split(" ")[1])
    line.locator("[tabindex='0']").focus()
    look.page.keyboard.press("Tab")
    assert look.page.evaluate("document.activeElement.closest('article').getAttribute('aria-label')").startswith(
        "Completion 1 of step 1"
    )


def test_kept_and_forks_are_marked_without_colour(look: Look) -> None:
    wanted = "node => { const s = getComputedStyle(node); return [s.fontWeight, s.textDecorationLine, s.boxShadow]; }"
    kept = look.page.locator(f"{SHOWN} .t.k:not(.f)").first.evaluate(wanted)
    plain = look.page.locator(f"{SHOWN} .t:not(.k):not(.f)").first.evaluate(wanted)
    fork = look.page.locator(f"{SHOWN} .t.f:not(.k)").first.evaluate(wanted)
    assert (kept[:2], plain[:2]) == (["700", "underline"], ["400", "none"])
    assert "2px inset" in fork[2]
    assert "1px inset" in plain[2]


def test_hostile_texts_are_text(look: Look) -> None:
    look.page.get_by_label("text", exact=True).fill("<script>")
    card = look.page.locator(SHOWN).first
    for index in range(card.locator(".t").count()):
        card.locator(".t").nth(index).hover()
    for button in look.page.query_selector_all("#list button"):
        button.click()
    assert look.page.evaluate("window.hacked") is None
    evil = look.card("Completion 5 of step 1,")
    text = evil.locator(".tokens").text_content()
    assert "<script>window.hacked=1</script></span><img src=x onerror=window.hacked=2>" in text
    assert "\u2039U+0000\u203a\u2039U+001B\u203a[31m\u2039U+007F\u203a\u2039U+000D\u203a\u2039U+202E\u203a" in text
    assert "\u05d0\u05d1 \u2039U+202E\u203a<b>\u2039U+2066\u203a" in evil.text_content()
    assert look.page.locator("img, iframe, object, embed, b").count() == 0
    assert look.page.locator("script").count() == 2
    assert evil.locator(".t").first.evaluate("node => getComputedStyle(node).unicodeBidi") == "isolate"


def test_two_policies_stand_side_by_side(both: Look) -> None:
    card = both.card("Completion 0 of step 1,")
    lines = card.locator(".tokens")
    assert lines.count() == 2
    assert card.locator("h4").all_text_contents() == ["A: the run's record", "B: policy B"]
    assert lines.nth(0).text_content() == lines.nth(1).text_content()
    lines.nth(1).locator(".t").nth(2).hover()
    found = both.numbers()
    assert found["entropy"] == ["0.667 nats", "1.333 nats"]
    assert found["difference"] == ["+0.667 nats"]
    assert found["probability"] == ["0.882", "0.750"]
    assert both.page.locator(".current").count() == 2, "the same token on both sides"
    assert both.page.locator("#numbers caption").all_text_contents() == [
        "Likeliest tokens, A, by the run's record", "Likeliest tokens, B, by policy B",
    ]  # fmt: skip


def test_forks_of_one_policy_only_are_marked_and_listed(both: Look) -> None:
    # B is certain where A is not: at the top fifth no fork is of both.
    forks = both.page.locator(f"{SHOWN} .t.f")
    assert forks.count() == both.page.locator(f"{SHOWN} .t.f.only").count() > 0
    assert "◆" in both.page.locator(".t.only").first.evaluate("node => getComputedStyle(node, '::after').content")
    only_a = both.page.locator("#whose")
    totals = []
    for choice in ("a", "only-a", "b", "only-b"):
        only_a.select_option(choice)
        totals.append(sum(int(row[1]) for row in both.rows()))
    assert totals[0] == totals[1]
    assert totals[2] == totals[3]
    both.page.locator("#nats").fill("0")
    both.page.keyboard.press("Enter")
    assert both.page.locator(f"{SHOWN} .t.only").count() == 0, "everything is a fork of both"
    assert both.rows() == []


def test_the_difference_has_a_colour_a_side(both: Look) -> None:
    both.page.locator("#colour").select_option("difference")
    assert both.page.locator("#difference").is_visible()
    tokens = both.card("Completion 0 of step 1,").locator(".tokens").first.locator(".t")
    kinds = [tokens.nth(index).get_attribute("class").split(" ")[1] for index in (0, 2, 3, 6)]
    # B - A is 2, 2/3, 0 and -2 nats.
    assert kinds == ["e6", "e4", "c0", "c6"]


def test_two_hundred_thousand_tokens_open_quickly_and_are_drawn_when_near(
    browser: Any, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "large.html"
    path.write_text(render(read_run(folder), noise(200, 1000), Decoder(word_decoder(), "of a test"), "B", []))
    assert path.stat().st_size < 10_000_000
    look = Look(browser, path, height=900)
    drawing = look.page.context.new_cdp_session(look.page)
    # Time of the page's thread on the processor: what else the machine does is not in it.
    drawing.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        found = drawing.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in found if one["name"] == "TaskDuration")

    started = spent()
    look.page.reload()
    look.page.wait_for_selector("html[data-ready]", timeout=120_000)
    opened = spent()
    assert 0 < opened - started < 20
    drawn = look.page.locator("#completions .t").count()
    assert 0 < drawn < 60_000
    look.page.evaluate("slider.value = 700; slider.dispatchEvent(new Event('input'))")
    answered = spent() - opened
    print(f"{opened - started:.2f} s to open, {answered:.3f} s until the slider has answered")
    assert answered < 2
    look.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    last = look.page.locator("article.completion").last
    last.locator(".t").first.wait_for(timeout=60_000)
    look.page.wait_for_function("!document.querySelector('article.completion .t')?.closest('article:first-child')")
    assert look.page.locator("#completions .t").count() < 60_000, "far ones are put away"
    assert look.said == []
    look.page.close()


@pytest.mark.parametrize("width", [1440, 420])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_differ_and_nothing_overflows(browser: Any, beside: Path, scheme: str, width: int) -> None:
    look = Look(browser, beside, scheme, width)
    lightness = "node => getComputedStyle(node)[%r].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    ground = look.page.locator("body").evaluate(lightness % "backgroundColor")
    ink = look.page.locator("#share").evaluate(lightness % "color")
    assert (ground > 600 and ink < 320) if scheme == "light" else (ground < 200 and ink > 450)
    wide = "() => [...document.querySelectorAll('body *')].filter(n => n.getBoundingClientRect().right > innerWidth + 1 && !n.closest('.list'))"  # noqa: E501
    assert look.page.evaluate(f"({wide})().map(n => n.tagName + '.' + n.getAttribute('class'))") == []
    look.page.close()
