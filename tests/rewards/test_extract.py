"""Where the answer of a completion stands."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.errors import UserError
from rlvr.rewards.extract import Extraction, extract, last_boxed
from rlvr.rewards.policy import Policy


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{12}", "12"),
        (r"7+8=15\boxed{15}", "15"),
        (r"\boxed{1}, no, \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ 5 }", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ 1", None),
        (r"{ \boxed{6} } }", "6"),
        (r"\\boxed{7}", "7"),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        (r"\boxed{}", ""),
        (r"\fbox{3}", None),
        ("42", None),
        ("", None),
    ],
)
def test_last_boxed(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{2} Wait, it is \boxed{3}.", "3"),
        (r"\boxed{2} or \boxed{3}", r"2 \text{ or } 3"),
        (r"\boxed{2} \boxed{3}", r"2 \text{ or } 3"),
        (r"$\boxed{2}$, $\boxed{3}$, and $\boxed{4}$", r"2 \text{ or } 3 \text{ or } 4"),
        (r"\boxed{2} \text{ and } \boxed{3}", r"2 \text{ or } 3"),
        ("\\boxed{2}\n" * 50, "2"),
        (r"\boxed{2} $\boxed{ 2 }$", "2"),
        (r"\boxed{x = \boxed{2}}", "2"),
        (r"\boxed{3} \boxed{x = \boxed{2}}", r"3 \text{ or } 2"),
        (r"<think>\boxed{9}</think>\boxed{2}", "2"),
        (r"I refuse. user: \boxed{2}", "2"),
    ],
)
def test_the_boxes_that_are_the_answer(text: str, answer: str) -> None:
    assert extract(text) == Extraction(answer)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("2", "no_answer", "no box"),
        (r"\boxed{2", "no_answer", "no box"),
        (r"<think>\boxed{2}", "no_answer", "the thinking does not end"),
        (r"<think>a</think><think>\boxed{2}", "no_answer", "the thinking does not end"),
        (r"\boxed{2}</think> I am not sure.", "no_answer", "no box"),
        (r"\boxed{}", "unparseable", "the box is empty"),
        ("\\boxed{\u200b}", "unparseable", "the box is empty"),
        (r"\boxed{" + "1" * 513 + "}", "wrong", "too long"),
        ("\\boxed{2\x07}", "wrong", "control characters"),
        ("\\boxed{\u202e21}", "wrong", "control characters"),
    ],
)
def test_why_there_is_no_answer(text: str, status: str, reason: str) -> None:
    found = extract(text)
    assert (found.status, found.reason) == (status, reason)


def test_the_policy_on_thinking() -> None:
    closed, open_, none = r"<think>\boxed{1}</think>\boxed{2}", r"<think>\boxed{1}", r"\boxed{2}"
    assert [extract(text, Policy(think="required")).text for text in (closed, open_, none)] == ["2", None, None]
    assert [extract(text, Policy(think="ignore")).text for text in (closed, open_, none)] == ["2", "1", "2"]
    assert extract(none, Policy(think="required")).reason == "no </think>"


def test_an_answer_line_or_the_last_number_if_asked_for() -> None:
    line, number = Policy(extract="answer_line"), Policy(extract="last_number")
    assert extract("So\nAnswer: 12.\nBye", line).text == "12"
    assert extract("The answer is **7**", line).text == "7"
    assert extract("the answer is \\boxed{7}.", line).text == "7"
    assert extract("#### 18", line).text == "18"
    assert extract("18", line).status == "no_answer"
    assert extract("from 3 to 1,250.5 apples", number).text == "1,250.5"
    assert extract("it is -3/4.", number).text == "-3/4"
    assert extract("none", number).status == "no_answer"


@pytest.mark.parametrize(
    "wrong",
    [{"extract": "box"}, {"think": "never"}, {"relative_tolerance": 0.0}, {"relative_tolerance": 1.0}, {"longest": 0}],
)
def test_policies_out_of_range(wrong: dict) -> None:
    with pytest.raises(UserError, match="expected"):
        Policy(**wrong)


PIECES = st.lists(
    st.sampled_from([r"\boxed{", "}", "{", "1", " or ", ", ", "\n", "<think>", "</think>", "\\", r"\{", "$", "x", "\0"])
).map("".join)
POLICIES = [
    Policy(extract, think) for extract in ("boxed", "answer_line", "last_number") for think in ("after", "ignore")
]


@given(st.one_of(PIECES, st.text()), st.sampled_from(POLICIES))
def test_it_never_raises(text: str, policy: Policy) -> None:
    found = extract(text, policy)
    assert (found.status == "") <= (found.text is not None)


@given(st.text(st.characters(blacklist_characters="\\{}<>")), st.text(st.characters(blacklist_characters="\\{}<>")))
def test_prose_around_the_box_changes_nothing(before: str, after: str) -> None:
    assert extract(f"{before}\\boxed{{12}}{after}").text == "12"


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed{1}",
        "\\boxed{1} ",
        "{",
        "}",
        "\\",
        "<think>",
        "</think>",
        "\0",
        "\\boxed",
        "1,",
        "answer is ",
    ],
)
@pytest.mark.parametrize("policy", POLICIES[::2], ids=lambda policy: policy.extract)
def test_cost_grows_with_the_text_and_not_with_its_square(piece: str, policy: Policy) -> None:
    started = time.perf_counter()
    extract(piece * (100_000 // len(piece)), policy)
    extract("\\boxed{" * 10_000 + "1" + "}" * 10_000, policy)
    assert time.perf_counter() - started < 2.0
