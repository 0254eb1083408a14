"""The page: hostile texts are texts, and in a browser it asks for nothing and complains about nothing."""

from pathlib import Path

import pytest

from rlvr.analysis.forking.page import write_page
from tests.analysis.forking.made import found_of

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x07\u202e"
TEXTS = ["<b>", HOSTILE, "\n", "&", "'\"", " ", "\t", "{{ 7*7 }}", "</div>", "end"]
CHROMIUM = Path("/usr/bin/chromium")


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
def test_in_a_browser(written: Path, scheme: str) -> None:
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing; install it: apt-get update && apt-get install -y chromium")
    said: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(written.as_uri())
        page.locator(".tokens").focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        assert "position 4, 0.670 nats" in page.locator(".detail").inner_text()
        browser.close()
    assert said == []
    assert requests == [written.as_uri()]
