"""The page of the token microscope: what stands in it, that texts of a model are inert, and that it can be read."""

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from rlvr.cli import main
from rlvr.errors import UserError
from rlvr.report.microscope import SCRIPTS, build_microscope
from rlvr.report.page import TEMPLATES
from rlvr.report.tokens import visible
from tests.report.folders import HOSTILE, write_run
from tests.report.microscope_pages import RTL, data_of, microscope_run
from tests.report.test_page import Elements
from tests.source import ROOT

STYLE = "".join((TEMPLATES / name).read_text() for name in ("page.css", "microscope.css"))
SCRIPT = "".join((TEMPLATES / name).read_text() for name in SCRIPTS)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = microscope_run(tmp_path_factory.mktemp("microscope") / "run")
    return build_microscope(folder, scoring=False).read_text(encoding="utf-8")


def test_the_page_says_what_it_shows(page: str) -> None:
    assert "a run of tests: token microscope" in page
    assert "12 completions of 2 of 2 recorded steps (1, 6), 116 tokens." in page
    assert "the tokenizer of model.path" in page
    data = data_of(page)
    assert len(data["completions"]) == 12
    assert {one["verdict"] for one in data["completions"]} == {"correct", "wrong", "ungraded"}
    assert data["columns"].keys() == {
        "text", "kept", "advantage", "ktae", "log_ratio", "entropy", "logprob", "top", "top_p", "rank",
    }  # fmt: skip


def test_texts_of_a_model_are_data_and_nothing_else(page: str) -> None:
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags].count("script") == 2, "the data and the page's own"
    assert not {"img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in elements.tags}
    attributes = [(name, value or "") for _, found in elements.tags for name, value in found.items()]
    assert [name for name, _ in attributes if name.startswith("on")] == []
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2066\u200b\ufeff]", page)
    data = data_of(page)
    for hostile in (*HOSTILE[:3], *HOSTILE[4:]):
        assert hostile in data["texts"]
        assert any(hostile in prompt for prompt in data["prompts"])
        assert page.count(hostile.replace("<", "\\u003c").replace('"', '\\"')) >= 3, hostile
        assert "<" not in hostile or hostile not in page
    assert any(visible(RTL) in prompt for prompt in data["prompts"])


def test_the_policy_allows_the_script_of_the_page_only(page: str) -> None:
    policy = next(found["content"] for tag, found in Elements(page).tags if tag == "meta" and "http-equiv" in found)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in (policy or "")


def test_the_script_writes_texts_only_and_asks_for_nothing() -> None:
    writes = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", 'setAttribute("on')
    asks = ("fetch(", "XMLHttpRequest", "import(", "http:", "https:", "url(", "@import")
    for name in (*writes, *asks):
        assert name not in SCRIPT + STYLE, name
    assert "textContent" in SCRIPT


def test_nothing_on_the_page_moves_by_itself() -> None:
    for name in ("transition", "animation", "smooth", "setInterval", "requestAnimationFrame"):
        assert name not in SCRIPT + STYLE, name


def variables(dark: bool) -> dict[str, str]:
    """The variables of the page's style; a later block wins, as in a browser."""
    found: dict[str, str] = {}
    for match in re.finditer(r"(@media \(prefers-color-scheme: dark\) \{\s*)?:root \{(.*?)\}", STYLE, re.DOTALL):
        if dark or not match[1]:
            found.update(re.findall(r"--([\w-]+): ([^;]+);", match[2]))
    return found


def colour(text: str) -> tuple[float, ...]:
    if text.startswith("#"):
        return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))
    return tuple(float(part) for part in text.split(","))


def linear(value: float) -> float:
    """A value of sRGB, 0 to 255, in linear light, 0 to 1."""
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def weighed(light: Sequence[float]) -> float:
    """Relative luminance of linear red, green and blue (WCAG 2.2)."""
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """(L1 + 0.05) / (L2 + 0.05), the lighter one above (WCAG 2.2)."""
    low, high = sorted(weighed([linear(value) for value in rgb]) for rgb in (first, second))
    return (high + 0.05) / (low + 0.05)


def ramp(found: dict[str, str], kind: str) -> list[tuple[float, ...]]:
    """Backgrounds of the tokens on a card, from the weakest: the `rgba()` of `.e1` to `.e6`, or `.c1` to `.c6`."""
    letter, base = {"heat": "e", "cool": "c"}[kind], colour(found["card"])
    backgrounds = [base]
    for level in range(1, 7):
        rule = re.search(rf"\.{letter}{level} \{{ background: rgba\(var\(--{kind}\), (.*?)\); \}}", STYLE)
        assert rule is not None
        factor = re.search(r"\* ([\d.]+)", rule[1])
        alpha = float(found[f"{kind}-most"]) * (float(factor[1]) if factor else 1.0)
        backgrounds.append(tuple(alpha * c + (1 - alpha) * b for c, b in zip(colour(found[kind]), base, strict=True)))
    return backgrounds


def test_contrast_by_hand() -> None:
    assert contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_a_contrast_of_at_least_four_and_a_half(dark: bool) -> None:
    found = variables(dark)
    assert (found["page"] == "#14171b") == dark
    for kind in ("heat", "cool"):
        for ink in ("ink", "kept"):
            assert min(contrast(colour(found[ink]), ground) for ground in ramp(found, kind)) >= 4.5, (kind, ink)
    for ground in ("page", "card"):
        for ink in ("ink", "soft", "good", "bad"):
            assert contrast(colour(found[ink]), colour(found[ground])) >= 4.5, (ink, ground)
        for mark in ("frame", "focus", "hit"):
            assert contrast(colour(found[mark]), colour(found[ground])) >= 3, "WCAG 1.4.11: what is no text"
    assert min(contrast(colour(found["frame"]), ground) for ground in ramp(found, "heat")) >= 3


# Linear sRGB as it is seen without one kind of cone: Viénot, Brettel and Mollon 1999.
BLIND = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
    "deuteranopia": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("sight", BLIND)
def test_the_ramp_gets_steadily_stronger_for_every_sight(sight: str, dark: bool) -> None:
    for kind in ("heat", "cool"):
        shades = []
        for rgb in ramp(variables(dark), kind):
            light = [linear(value) for value in rgb]
            shades.append(weighed([sum(a * b for a, b in zip(row, light, strict=True)) for row in BLIND[sight]]))
        steps = [(second + 0.05) / (first + 0.05) for first, second in pairwise(shades)]
        assert all(step > 1.04 for step in steps) if dark else all(step < 0.96 for step in steps), (kind, steps)


def test_the_command_writes_the_page_and_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = microscope_run(tmp_path / "run")
    assert main(["microscope", str(folder), "--no-scoring", "--steps", "6", "--completions", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{folder}/microscope\.html \(0\.\d MB\); open it in a browser, it needs no network", said[0])
    assert said[1:] == [f"next: rlvr microscope {folder} --against builtin"]
    assert len(data_of((folder / "microscope.html").read_text())["completions"]) == 2
    assert not (folder / "microscope.html.partial").exists()


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = microscope_run(tmp_path / "run")
    assert main(["microscope", str(folder), "--steps", "2"]) == 2
    assert "choose --steps from 1, 6" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"cannot be written .*; choose another file with --out"):
        build_microscope(folder, scoring=False, out=tmp_path / "nowhere" / "page.html")
    assert main(["microscope", str(tmp_path)]) == 2
    assert "has no metrics.jsonl" in capsys.readouterr().err


def test_gaps_that_stay_are_said(tmp_path: Path) -> None:
    page = build_microscope(write_run(tmp_path / "run"), completions=5).read_text()
    assert f"5 completions have gaps that {tmp_path}/run/policy could not fill" in page, (
        "the folder of the policy holds no weights"
    )
    assert "5 completions of 5 of 5 recorded steps" in page


def test_what_was_selected_inside_the_loss_is_said(tmp_path: Path) -> None:
    folder = microscope_run(tmp_path / "run")
    config = (folder / "config.yaml").read_text().replace("keep: 0.2", "keep: 0.2\n  scope: micro_batch")
    (folder / "config.yaml").write_text(config)
    assert "are the tokens it could choose from" in build_microscope(folder, scoring=False).read_text()


def test_a_page_without_scoring_loads_no_torch(tmp_path: Path) -> None:
    folder = microscope_run(tmp_path / "run")
    code = (
        "import sys; from rlvr.cli import main; light = {'numpy', 'pyarrow', 'jinja2', 'torch'} & sys.modules.keys(); "
        f"main(['microscope', {str(folder)!r}, '--no-scoring']); "
        "print(sorted(light), sorted({'torch', 'transformers', 'trl', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[] []"
