"""Which columns hold prompts and golds, and in which form: each convention, and every way it can go wrong."""

from decimal import Decimal
from typing import Any

import pytest

from rlvr.data.base import Problem
from rlvr.data.columns import RowsPart, Source
from rlvr.data.golds import accepted_forms
from rlvr.data.mapping import Mapped, map_columns, strip_questions
from rlvr.errors import UserError
from rlvr.rewards.accuracy import Accuracy
from rlvr.rewards.adapter import RewardFunction

CHAT = [{"role": "user", "content": "What is 6*7?"}]


def source(*files: list[dict[str, Any]]) -> Source:
    parts = [RowsPart(f"{'abc'[n]}.jsonl", rows, range(1, len(rows) + 1), "line") for n, rows in enumerate(files)]
    return Source("data.train_files=x", parts)


def mapped(*rows: dict[str, Any], **settings: Any) -> Mapped:
    return map_columns(source(list(rows)), **settings)


def only(row: dict[str, Any], **settings: Any) -> tuple[Any, Any]:
    (question,) = mapped(row, **settings).questions
    return question.prompt, question.gold


@pytest.mark.parametrize(
    ("row", "prompt", "gold"),
    [
        # TRL and open-r1
        ({"problem": "6*7?", "solution": "$42$"}, "6*7?", "$42$"),
        ({"prompt": CHAT, "solution": "42"}, CHAT, "42"),
        ({"problem": "6*7?", "solution": "Six sevens: \\boxed{42}.", "answer": "42"}, "6*7?", "42"),
        ({"question": "6*7?", "final_answer": "42"}, "6*7?", "42"),
        # verl and DAPO
        ({"prompt": CHAT, "reward_model": {"ground_truth": "42", "style": "rule"}, "ability": "MATH"}, CHAT, "42"),
        ({"prompt": "6*7?", "reward_model": {"ground_truth": '["42", "42.0"]'}}, "6*7?", ("42", "42.0")),
        # GSM8K
        ({"question": "6*7?", "answer": "6 sevens = <<6*7=42>>42\n#### 42"}, "6*7?", "42"),
        ({"question": "6*7?", "answer": "not #### 41 but\n#### 1,234,567 "}, "6*7?", "1234567"),
        # MATH
        ({"problem": "6*7?", "solution": "First \\boxed{41}, no: $\\boxed{\\frac{84}{2}}$."}, "6*7?", "\\frac{84}{2}"),
        ({"problem": "6*7?", "solution": "It is $\\boxed 42$.", "level": "Level 1"}, "6*7?", "42"),
        ({"problem": "6*7?", "solution": "It is $\\fbox{42}$."}, "6*7?", "42"),
        # Benchmarks: numbers, lists, and the question twice
        ({"problem": "6*7?", "question": "6*7?", "answer": 42.0}, "6*7?", "42"),
        ({"question": "6*7?", "solution": ["Long.", "Longer."], "final_answer": ["$42$"]}, "6*7?", "$42$"),
        ({"question": "6*7?", "final_answer": [["$42$", "forty-two"], ["$42$"]]}, "6*7?", ("$42$", "forty-two")),
        ({"problem": "1/8?", "answer": 0.125}, "1/8?", "0.125"),
        ({"problem": "an interval?", "answer": "[1, 2]"}, "an interval?", "[1, 2]"),
        ({"Problem": "6*7?", "Answer": 42}, "6*7?", "42"),
    ],
)
def test_the_conventions(row: dict[str, Any], prompt: Any, gold: Any) -> None:
    assert only(row) == (prompt, gold)


def test_named_columns_and_dotted_paths() -> None:
    row = {"prompt": CHAT, "q": "1+1?", "reward_model": {"ground_truth": "42"}, "a.b": "2", "extra": {"answer": "2"}}
    assert only(row, prompt_column="prompt.0.content", gold_column="reward_model.ground_truth") == (
        "What is 6*7?",
        "42",
    )
    assert only(row, prompt_column="q", gold_column="a.b") == ("1+1?", "2")
    assert only(row, prompt_column="q", gold_column="extra.answer") == ("1+1?", "2")


def test_a_column_is_read_in_one_style() -> None:
    rows = [{"problem": f"{n}?", "solution": f"\\boxed{{{n}}}"} for n in range(3)]
    with pytest.raises(UserError, match=r"1 of 4 rows .* no gold answer in `solution` \(in the last .* \(line 4\)"):
        mapped(*rows, {"problem": "x?", "solution": "forgot the box"})
    # A box in one of many plain golds is the grader's to open.
    plain = [{"problem": f"{n}?", "answer": str(n)} for n in range(3)]
    assert mapped(*plain, {"problem": "x?", "answer": "\\boxed{5}"}).questions[3].gold == "\\boxed{5}"


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"text": "6*7?", "answer": "42"}, {}, "columns text, answer: no prompt among them; expected a prompt"),
        ({"problem": "6*7?", "label": "42"}, {}, "columns problem, label: no gold answer among them"),
        ({"problem": "6*7?", "prompt": "Say 6*7.", "answer": "42"}, {}, "prompt and problem differ"),
        ({"problem": "6*7?", "answer": "42", "final_answer": "43"}, {}, "final_answer and answer differ"),
        ({"problem": "6*7?", "solution": "So it goes. " * 40}, {}, "solution holds long texts"),
        (
            {"problem": "6*7?", "answer": "42"},
            {"prompt_column": "problm"},
            "data.prompt_column is problm, .* mean problem?",
        ),
        (
            {"problem": "6*7?", "x": {"gold": "42"}},
            {"gold_column": "x.gild"},
            "data.gold_column is x.gild, .* mean x.gold?",
        ),
        ({"problem": "6*7?", "x": {"gold": "42"}}, {"gold_column": "x"}, "is a dict; .* dotted path"),
        ({"problem": "6*7?", "answer": True}, {}, "answer of data.train_files=x is a bool"),
        ({"problem": 42, "answer": "42"}, {}, "line 1, is a int; expected a text or a list of"),
        ({"prompt": [{"role": "user"}], "answer": "42"}, {}, "expected a text or a list of {role, content} messages"),
    ],
)
def test_what_does_not_fit_is_refused(row: dict[str, Any], settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mapped(row, **settings)


@pytest.mark.parametrize("row", [{"text": "6*7?", "answer": "42"}, {"problem": "6*7?", "label": "42"}])
def test_the_message_names_both_settings(row: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"data.prompt_column and data.gold_column") as caught:
        mapped(row)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("empty", [None, "", "  ", float("nan"), [], [""]])
def test_empty_golds_are_refused_with_count_and_rows(empty: Any) -> None:
    rows = [{"problem": f"{n}?", "answer": empty if n % 2 else str(n)} for n in range(20)]
    with pytest.raises(
        UserError, match=r"10 of 20 rows .* no gold answer in `answer` \(line 2, line 4, .* line 10, \.\.\.\)"
    ):
        mapped(*rows)
    found = mapped(*rows, drop_empty=True)
    assert [question.gold for question in found.questions] == [str(n) for n in range(0, 20, 2)]
    assert found.empty == 10
    with pytest.raises(UserError, match="1 of 1 rows"):  # nothing would be left
        mapped(rows[1], drop_empty=True)


def test_empty_prompts_are_refused_too() -> None:
    with pytest.raises(UserError, match=r"1 of 2 rows .* no prompt in `problem` \(line 2\)"):
        mapped({"problem": "6*7?", "answer": "42"}, {"problem": " ", "answer": "42"})


def test_a_repeated_prompt_is_kept_once_and_another_gold_is_counted() -> None:
    golds = ["", "42", "42", "43"]
    found = mapped(*({"problem": "6*7?", "answer": gold} for gold in golds), drop_empty=True)
    assert [question.gold for question in found.questions] == ["42"]
    assert (found.duplicates, found.contradictions, found.empty) == (2, 1, 1)
    assert "2 rows that repeat a prompt left out, 1 of them with another gold" in found.describe()


def test_files_of_different_conventions_are_read_together() -> None:
    gsm8k = [{"question": "6*7?", "answer": "#### 42"}]
    verl = [{"prompt": CHAT, "reward_model": {"ground_truth": "42"}}]
    found = map_columns(source(gsm8k, [], verl))
    assert [question.prompt for question in found.questions] == ["6*7?", CHAT]
    assert [columns.gold for columns in found.columns] == ["answer", "reward_model.ground_truth"]
    with pytest.raises(UserError, match=r"\(c.jsonl line 1\)"):
        map_columns(source(gsm8k, [], [{"prompt": CHAT, "answer": ""}]))


def test_a_given_column_is_searched_for_only_where_asked() -> None:
    files = source([{"q": "6*7?", "a": "42"}], [{"problem": "1+1?", "answer": "2"}])
    with pytest.raises(UserError, match=r"data.prompt_column is q, but b.jsonl in"):
        map_columns(files, "q", "a")
    assert [question.gold for question in map_columns(files, "q", "a", search=True).questions] == ["42", "2"]


def test_instructions_in_the_data_come_off() -> None:
    rows = [{"problem": f"Solve this.\n\n{text}\n\nBe brief.", "answer": "42"} for text in ("6*7?", "6*7? ", "40+2?")]
    questions, lacking = strip_questions(
        mapped(*rows, {"problem": "6+7?", "answer": "13"}).questions, "Solve this.\n\n", "Be brief."
    )
    assert [question.prompt for question in questions] == ["6*7?", "40+2?", "6+7?"]
    assert lacking == {"strip_prefix": 1, "strip_suffix": 1}
    assert strip_questions(questions, "", "") == (questions, {})


def test_accepted_forms_stay_texts_where_json_is_no_list_of_texts() -> None:
    assert accepted_forms('["42"', "x") == ['["42"']
    assert accepted_forms('["42", 43]', "x") == ['["42", 43]']
    assert accepted_forms(10**20, "x") == ["1" + "0" * 20]
    assert accepted_forms(Decimal("3.10"), "x") == ["3.10"]  # Parquet has such columns


def test_any_accepted_form_is_rewarded() -> None:
    gold = only({"problem": "6*7?", "answer": ["42", "x=42"]})[1]
    assert hash(Problem("6*7?", gold)) == hash(Problem("6*7?", ("42", "x=42")))
    reward = RewardFunction("accuracy", Accuracy())
    reward.bind([0], 8)
    assert reward(["\\boxed{x=42}", "\\boxed{41}"], [[1, 0], [1, 0]], gold=[gold, gold]) == [1.0, 0.0]
