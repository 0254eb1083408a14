# ruff: noqa: RUF001 - signs that look like others are what is tested
"""One spelling for what models write in many."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.rewards.forms import gold_forms
from rlvr.rewards.normalise import compact, normalise


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("８７", "87"), ("𝟖𝟕", "87"), ("8\u200b7", "87"), ("8\x007", "87"), ("−8", "-8"), ("–8", "-8"),
        ("½", r"\frac{1}{2}"),
        ("2½", r"2\frac{1}{2}"), ("√7", r"\sqrt 7"), ("x²", "x^{2}"), ("x₁", "x_{1}"), ("45°", r"45^{\circ}"),
        ("2π", r"2\pi"), ("∞", r"\infty"), ("3×10⁶", r"3\times 10^{6}"), ("٨", "٨"), ("50%", r"50\%"),
        (r"1{,}250", "1250"), (r"1\,250", "1250"), (r"1,\!250", "1250"), ("1 250 000", "1250000"), (r"\$12", "12"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"), (r"\left(1,2\right)", "(1,2)"), (r"\text{-}8", "-8"),
        ("$8$", "8"), ("8.", "8"),
        (r"\mathrm{i}", "i"), (r"\mathbf{v}", "v"), (r"{8}", "8"), (r"8\;", "8"), (r"\text{8 days}", r"8 \text{days}"),
        (r"f^{\prime}", "f'"), (r"60^\circ", r"60^{\circ}"), (r"\displaystyle 8", "8"), (r"\boxed{8}", "8"),
    ],
)  # fmt: skip
def test_spellings(text: str, plain: str) -> None:
    assert compact(normalise(text)) == compact(plain)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"1, 2, \ldots", "1,2,..."), ("1,2,\\dots.", "1,2,..."), ("1, 2, …", "1,2,..."), ("5...", "5..."),
        ("5....", "5..."), ("5..", "5"), ("5.,", "5"), ("1,2,", "1,2"), ("0.333...", "0.333..."),
    ],
)  # fmt: skip
def test_points_that_go_on_stay(text: str, plain: str) -> None:
    assert compact(normalise(text)) == plain


@given(st.text(max_size=60))
def test_any_text_can_be_normalised(text: str) -> None:
    assert isinstance(compact(normalise(text)), str)


@pytest.mark.parametrize("piece", ["1,", r"\text{", "{", r"\!", "1 ", r"\\", "^", "{,}", r"\left"])
def test_cost_is_linear(piece: str) -> None:
    started = time.perf_counter()
    normalise(piece * (100_000 // len(piece)))
    assert time.perf_counter() - started < 3.0


@pytest.mark.parametrize(
    ("gold", "forms"),
    [
        ("17", ("17",)), (" 17 \n", ("17",)), ("$17$", ("17",)), ("$$17$$", ("17",)), (r"\(17\)", ("17",)),
        (r"\[17\]", ("17",)), (r"\boxed{17}", ("17",)), (r"Hence $\boxed{17}$.", ("17",)),
        ([["17 "], " $18$"], ("17", "18")),
        (["17", "17"], ("17",)), ("", ()), ([], ()), (["", " "], ()), ("$5$ or $6$", ("$5$ or $6$",)),
    ],
)  # fmt: skip
def test_gold_forms(gold: str | list, forms: tuple[str, ...]) -> None:
    assert gold_forms(gold) == forms
