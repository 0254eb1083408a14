"""The page: hostile texts are texts, and in a browser it asks for nothing and complains about nothing."""

from pathlib import Path
from typing import Any

import pytest

from rlvr.analysis.forking.page import write_page
from tests.analysis.forking.made import found_of
from tests.browser import Visit

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x07\u202e"
TEXTS = ["<b>", HOSTILE, "\n", "&", "'\"", " ", "\t", "{{ 7*7 }}", "</div>", "end"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"), found_of(TEXTS, lambda _: HOSTILE, HOSTILE), f"Forks {HOSTILE}")


def test_no_text_of_a_model_can_act(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7*7 }}" in text


def test_the_fork_is_marked_and_every_position_is_there(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    tokens = text[text.index('class="tokens"') : text.index("</div>", text.index('class="tokens"'))]
    assert tokens.count('<span class="t ') == 10
    assert tokens.count(' k"') == 1
    assert 'title="position 4, 0.670 nats, p 0.400, hazard 0.60' in tokens
    assert text.count('<th scope="row">') == 11  # one fork, ten positions


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser: Any, written: Path, scheme: str) -> None:
    visit = Visit(browser, written, scheme)
    visit.page.locator(".tokens").focus()
    for _ in range(5):
        visit.page.keyboard.press("ArrowRight")
    assert "position 4, 0.670 nats" in visit.page.locator(".detail").inner_text()
    visit.page.close()
    assert visit.said == []
    assert visit.requests == [written.as_uri()]
