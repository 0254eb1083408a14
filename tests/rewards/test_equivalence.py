"""Verdicts that a person can judge: a test per correction of math-verify, a table of answers, hostile answers."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.rewards import screen
from rlvr.rewards.equivalence import decide
from rlvr.rewards.exact import decide_fast
from rlvr.rewards.policy import DEFAULT, Policy

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases_equivalence.jsonl").read_text().splitlines()]


def is_right(answer: str, gold: str, policy: Policy = DEFAULT) -> bool:
    """The verdict of a worker, which the fast path has to share where it has one."""
    status = decide(answer, (gold,), policy)[0]
    fast = decide_fast(answer, (gold,))
    if policy is DEFAULT and fast is not None:
        assert fast[0] == status, (answer, gold, fast, status)
    return status == "correct"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['gold']}|{case['answer']}")
def test_the_table(case: dict) -> None:
    assert is_right(case["answer"], case["gold"]) is case["correct"]


CORRECTIONS = {
    "percent": [("40", r"40\%", True), ("0.4", r"40\%", True), ("4", r"40\%", False), (r"40\%", "0.4", True)],
    "percent_of_percent": [(r"40\%", r"0.4\%", False), (r"12.5\%", r"\frac{1}{8}", True)],
    "units": [
        ("12", r"12\text{ kg}", True),
        ("12", r"12\,\mathrm{m/s}", True),
        (r"3\text{ m}", r"300\text{ cm}", True),
    ],
    "units_in_letters": [
        ("12", r"12\ \mathrm{m}", True),
        ("4.5e33", r"4.5 \times 10^{33} \mathrm{erg} \, \mathrm{s}^{-1}", True),
    ],
    "units_in_fractions": [("12", r"12 \frac{\text{m}}{\text{s}^2}", True), ("12", "12m", False), ("m", "12 m", False)],
    "other_units": [(r"3\text{ m}", r"3\text{ cm}", False), (r"3\text{ m}^2", r"3\text{ m}", False)],
    "degrees": [(r"60^\circ", "60", True), (r"60^\circ", r"\frac{\pi}{3}", True), ("60", r"\frac{\pi}{3}", False)],
    "degrees_inside": [(r"\cos(60^\circ)", "0.5", True), (r"\frac{1}{2}", r"\cos 60^\circ", True)],
    "thousands": [("25000", r"25\,000", True), ("25,000", r"25{,}000", True), ("25000", r"25,\!000", True)],
    "thousands_or_list": [("2,500", "2500", True), ("2,5", "25", False), ("2,500", r"500,\ 2", True)],
    "thousands_in_a_list": [
        ("(1000,2)", "(1,000, 2)", True),
        ("(1,250, 2)", "(1250,2)", True),
        ("1000,2", "2, 1,000", True),
        ("1000,2", "1,000, 2", True),
        ("(1,200,3)", "(1,200,3)", True),
        ("(1200,3)", "(1,200,3)", False),
        ("(1000,2)", "(1, 000, 2)", False),
        ("1000", "(1,000)", False),
    ],
    "lists_that_go_on": [
        ("1,2", r"1, 2, \ldots", False),
        (r"1,2,\ldots", "1, 2, ...", True),
        (r"\{1,2\}", r"\{1,2,\ldots\}", False),
        ("5", "5...", False),
        ("0.333", "0.333...", False),
        (r"\frac{1}{3}", "0.333...", False),
        (r"\sqrt{2}", r"\sqrt{2}\ldots", False),
    ],
    "powers_of_ten": [
        ("3000000", "3e6", True),
        ("3000000", r"3 \times 10^{6}", True),
        ("0.003", r"3\cdot 10^{-3}", True),
    ],
    "minus_in_text": [("-8", r"\text{-}8", True), ("8", r"\text{-}8", False)],
    "choices": [
        ("B", r"(B) 17", True),
        ("B", r"\textbf{(B) }17", True),
        ("17", r"(B) 17", True),
        ("B", r"(C) 17", False),
    ],
    "mixed_numbers": [(r"\frac{7}{3}", r"2\frac{1}{3}", True), (r"\frac{2}{3}", r"2\frac{1}{3}", False)],
    "fractions_without_braces": [(r"\frac{1}{2}", r"\frac12", True), (r"\frac{7}{3}", r"\frac73", True)],
    "repeating_decimals": [(r"\frac{1}{6}", r"0.1\overline{6}", True), (r"\frac{1}{6}", "0.16", False)],
    "number_words": [("14", r"\text{fourteen}", True), ("32", "thirty-two", True), ("14", r"\text{forty}", False)],
    "inequalities": [
        ("(-\\infty,7)", "t<7", True),
        ("[7,\\infty)", r"t \ge 7", True),
        ("(-\\infty,7)", r"t\le 7", False),
    ],
    "double_inequalities": [("(1,7]", r"1<t\le7", True), ("(1,7]", r"7 \ge t > 1", True), ("(1,7]", "1<t<7", False)],
    "imaginary_unit": [("2i", r"\sqrt{-4}", True), ("2i", r"-\sqrt{-4}", False)],
    "infinity": [(r"\infty", r"\text{Infinity}", True), (r"-\infty", r"\infty", False)],
    "sets": [(r"\{3,4\}", "4, 3", True), (r"\{3,4\}", "(3,4)", False), ("(3,4)", r"\{3,4\}", False)],
    "tuples_of_alternatives": [
        ("(3,4)", r"(3 \text{ or } 4)", False),
        ("(3,4)", "3,4", True),
        ("(3,4)", r"3 \text{ or } 4", False),
    ],
    "assignments": [("9", "n=9", True), ("n=9", "9", True), ("n=9", "m=9", False), ("9", "9=n", True)],
    "equations": [("y=3x-1", "3x-1", True), ("y=3x-1", "3x-y=1", True), ("y=3x-1", "y=3x", False)],
    "bases": [("101_2", "101_{2}", True), ("101_2", "101_3", False), ("101_2", "101", False), ("101_2", "5", False)],
    "decimals_for_irrationals": [(r"\sqrt{7}", "2.6457513110645906", False), (r"2\pi", "6.283185307", False)],
    "decimals_for_fractions": [(r"\frac{2}{3}", "0.6666666667", False), (r"\frac{1}{999}", "0.001001001", False)],
    "tiny_magnitudes": [(r"6.63 \times 10^{-34}", r"1.05 \times 10^{-34}", False), (r"6.63e-34", "0", False)],
    "measurements": [
        ("6.63e-34", r"6.626 \times 10^{-34}", True),
        ("6.63e-34", "6.6e-34", False),
        ("2.5", "2.52", False),
    ],
    "money": [("7.25", r"\$7.25", True), (r"\$7.25", r"7.25 \text{ dollars}", True)],
    "matrices": [
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ \frac{4}{2} \end{bmatrix}", True),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1 & 2\end{pmatrix}", False),
    ],
    "letters_keep_their_names": [("3a+1", "3b+1", False), ("x_1", "x_2", False)],
    "logarithms": [(r"\log_{10} 7", r"\log 7", True), (r"\ln 7", r"\log 7", True), (r"\log_2 7", r"\log 7", False)],
    "products_with_roots": [
        (r"5 \sqrt[3]{4}", r"5 \cdot 2^{2/3}", True),
        (r"5 \sqrt[3]{4}", r"5 \cdot 4^{2/3}", False),
    ],
    "functions_at_a_point": [("f(0)e^{-t}", "-f(0)e^{-t}", False), ("f(0)e^{-t}", r"\frac{f(0)}{e^t}", True)],
}


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_correction(name: str) -> None:
    got = [is_right(answer, gold) for gold, answer, _ in CORRECTIONS[name]]
    assert got == [right for _, _, right in CORRECTIONS[name]]


@pytest.mark.parametrize(
    ("answer", "gold", "reason"),
    [
        ("6, 7", "6", screen.SEVERAL),
        (r"6 \text{ or } 7", "6", screen.SEVERAL),
        ("n=7, n=6", "6", screen.SEVERAL),
        ("5=6", "6", screen.EQUATION),
        ("6=6", "n=6", screen.EQUATION),
        ("3+3=6", "6", screen.EQUATION),
        ("n^2=6", "6", screen.EQUATION),
        ("4=5=6", "6", screen.CHAIN),
        ("n=1=6", "6", screen.CHAIN),
        ("3+3", "6", screen.UNEVALUATED),
        (r"2 \cdot 3", "6", screen.UNEVALUATED),
        (r"(2)(3)", "6", screen.UNEVALUATED),
        ("3!", "6", screen.UNEVALUATED),
        (r"\binom{4}{2}", "6", screen.UNEVALUATED),
        (r"\sum_{k=1}^{3} k", "6", screen.UNEVALUATED),
        (r"\prod_{k=1}^{3} k", "6", screen.UNEVALUATED),
        (r"\int_0^6 1 \, dx", "6", screen.UNEVALUATED),
        (r"\lim_{n\to\infty} 6", "6", screen.UNEVALUATED),
        (r"\gcd(12, 18)", "6", screen.UNEVALUATED),
        (r"\max(1, 6)", "6", screen.UNEVALUATED),
        ("7^{7^{7^{7}}}", "6", screen.TOO_BIG),
        ("7^{77777777}", "6", screen.TOO_BIG),
        ("(6^{999})^{999}", "6", screen.TOO_BIG),
        (r"\sqrt{2}^{9999^{9999}}", "6", screen.TOO_BIG),
        ("6/0", "6", screen.UNDEFINED),
        ("0^0", "1", screen.UNDEFINED),
        (r"\ln(0)", "6", screen.UNDEFINED),
        ("{" * 200 + "6" + "}" * 200 + "+1", "6", screen.TOO_DEEP),
        ("(((" * 10 + "6" + ")))" * 10 + "+0", "6", screen.TOO_DEEP),
    ],
)
def test_a_reject_has_its_reason(answer: str, gold: str, reason: str) -> None:
    assert decide(answer, (gold,), DEFAULT)[1] == reason
    assert decide(answer, (gold,), DEFAULT)[0] != "correct"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\frac{50!}{2^{25}}", r"\frac{50!}{2^{25}}"),
        ("3+3", "2+4"),
        ("n!(n+1)", "(n+1)!"),
        (r"\sum_{k=1}^{n} k^k", r"\sum_{k=1}^{n} k^{k}"),
        (r"n = 2 \cdot 3", r"6 \cdot 1"),
    ],
)
def test_what_the_gold_has_too_is_allowed(answer: str, gold: str) -> None:
    assert is_right(answer, gold)


def test_true_chains_of_a_name_count() -> None:
    assert is_right(r"S = \frac{3}{4} = 0.75", "0.75")
    assert not is_right(r"S = \frac{3}{4} = 0.74", "0.74")


def test_alternatives_that_are_all_the_gold_are_one_answer() -> None:
    assert is_right(r"\frac{3}{4} \text{ or } 0.75", "0.75")
    assert not is_right(r"\frac{3}{4} \text{ or } 0.7", "0.75")


def test_a_tolerance_is_the_policys() -> None:
    loose = Policy(relative_tolerance=1e-4)
    for gold, answer in ((r"\sqrt{7}", "2.6458"), (r"\frac{2}{3}", "0.66667"), ("1.6", "1.60001")):
        assert is_right(answer, gold, loose)
        assert not is_right(answer, gold)
    assert not is_right("2.65", r"\sqrt{7}", loose)


def test_several_golds() -> None:
    assert decide("7", ("6", "7"), DEFAULT) == ("correct", "")
    assert decide("8", ("6", "7"), DEFAULT) == ("wrong", "")
    assert decide("8", (), DEFAULT)[0] == "unparseable"
    assert decide("8", ("$",), DEFAULT)[0] == "unparseable"


def test_words_that_say_nothing_are_unreadable() -> None:
    assert decide(r"\text{see above} + 3", ("6",), DEFAULT) == ("unparseable", screen.UNREADABLE)


HOSTILE = [
    r"\frac{1}{" * 60 + "2" + "}" * 60, r"\sqrt{" * 80 + "2" + "}" * 80, "1+" * 200 + "1", "(a+b+c+d)^{90}",
    r"(1+x)^{9999}", "((200!)!)!", r"10^{-10^{9}}", "x^{x^{x^{x^{x^{x}}}}}", r"\int_0^1 e^{e^{e^x}} dx",
    r"e^{e^{e^{e^{e}}}}", "9!!!!", r"\binom{99999999}{4999999}", "1e9999", "-" * 300 + "1", "^" * 100, "_" * 100,
    "x^{100}+x^{37}-x^5+3=0", r"\sin(x)e^x+x^{x}=\ln(x+1)", r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{100000}", "|" * 99,
    "__import__('os').system('true')", r"\text{" * 40, "1," * 200 + "1", "{,}" * 150, "1 " * 200, r"\left" * 80,
]  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_are_wrong_and_quick(answer: str) -> None:
    started = time.perf_counter()
    decide_fast(answer, ("6",))
    assert decide(answer, ("6", r"\sqrt{2}", "x+1"), DEFAULT)[0] in ("wrong", "unparseable")
    assert time.perf_counter() - started < 2.0


COMMANDS = [
    r"\frac", r"\sqrt", r"\pi", r"\text{", r"\cup", r"\pm", r"\circ", r"\%", r"\infty", r"\le ", " or ", r"\sin", r"\{",
    r"\}", r"\left(", r"\right)", r"\overline{3}", r"\begin{pmatrix}", r"\end{pmatrix}", r"\\", "&", "½",
]  # fmt: skip
FRAGMENTS = st.lists(st.sampled_from([*"0123456789xyie+-*/^_=<>()[]{}|!,.;:% '\\", *COMMANDS]), max_size=14).map(
    "".join
)


@settings(max_examples=1500, deadline=5000)
@given(FRAGMENTS, st.sampled_from(["6", r"\sqrt{2}", "x+1", "(1,2)", r"\{1,2\}", "(-\\infty,3)", "A", r"\text{yes}"]))
def test_any_answer_has_a_verdict_and_both_paths_agree(answer: str, gold: str) -> None:
    status, _ = decide(answer, (gold,), DEFAULT)
    assert status in ("correct", "wrong", "unparseable")
    fast = decide_fast(answer, (gold,))
    assert fast is None or fast[0] == status


@settings(max_examples=300, deadline=5000)
@given(FRAGMENTS.filter(lambda text: bool(text.strip())))
def test_an_answer_is_its_own_gold(answer: str) -> None:
    assert decide(answer, (answer,), DEFAULT)[0] in ("correct", "unparseable")
