"""The built-in task: right golds, no overlap, known numbers only, honest demonstrations."""

import hashlib
import random

import pytest

from rlvr.data.arithmetic import Arithmetic
from rlvr.data.base import Data, Problem
from rlvr.data.demonstrations import END_OF_TEXT, demonstrate
from rlvr.data.expressions import ends, outcomes, parse, reduce_pair, render, value
from rlvr.errors import UserError
from rlvr.registry import load_variants


def test_prompt_id_is_the_start_of_the_sha256() -> None:
    assert Problem("7+4*2=", "15").prompt_id == hashlib.sha256(b"7+4*2=").hexdigest()[:16]
    chat = [{"role": "user", "content": "7+4*2="}]
    text = b'[{"content": "7+4*2=", "role": "user"}]'
    assert Problem(chat, "15").prompt_id == hashlib.sha256(text).hexdigest()[:16]


def test_a_data_source_has_to_define_both_lists() -> None:
    for method in (Data().train, Data().heldout):
        with pytest.raises(TypeError, match="define"):
            method()


def test_golds_are_the_values_by_the_rules() -> None:
    problems = Arithmetic(train_size=300, heldout_size=100)
    for problem in problems.train() + problems.heldout():
        # The prompts hold digits and operators only, so Python's own arithmetic is the referee.
        assert str(eval(str(problem.prompt).removesuffix("="))) == problem.gold


def test_no_problem_twice_and_none_on_both_sides() -> None:
    data = Arithmetic()
    train, heldout = data.train(), data.heldout()
    assert (len(train), len(heldout)) == (8192, 512)
    assert len({problem.prompt for problem in train + heldout}) == 8192 + 512
    assert load_variants()["data"]["arithmetic"] is Arithmetic


def test_the_seed_is_all_that_is_random() -> None:
    one, same = Arithmetic(train_size=50, heldout_size=20), Arithmetic(train_size=50, heldout_size=20)
    assert one.train() == same.train()
    assert one.heldout() == same.heldout() == Arithmetic(train_size=80, heldout_size=20).heldout()
    assert one.train() != Arithmetic(train_size=50, heldout_size=20, seed=1).train()


def test_every_order_stays_within_the_known_numbers_and_some_order_is_wrong() -> None:
    data = Arithmetic(train_size=200, heldout_size=0, largest_value=30)
    for problem in data.train():
        reached = outcomes(parse(str(problem.prompt)), 30)
        assert reached is not None
        assert len(reached) > 1
        assert sum(chance for _, chance in reached) == pytest.approx(1.0)


def test_outcomes_worked_by_hand() -> None:
    # 7+4*2: the sum first gives 11*2 = 22, the product first 7+8 = 15.
    assert outcomes(parse("7+4*2"), 22) == ((15, 0.5), (22, 0.5))
    assert outcomes(parse("7+4*2"), 21) is None
    assert outcomes(parse("2-3+4"), 60) is None  # 2-3 is below 0
    # 1*2-3 would be below 0; 5-3*1+2 has orders 4, 4, 2-... : 5-3*3 = 5-9 is below 0.
    assert outcomes(parse("5-3*1+2"), 60) is None
    # 9-2*2+1: product first 9-4+1 -> 6 (left) or 4 (right); 9-2 first 7*2+1 -> 15 or 21; 2+1 first 9-2*3 -> 3 or 21.
    chances = dict(outcomes(parse("9-2*2+1"), 60) or ())
    assert chances == pytest.approx({3: 1 / 6, 4: 1 / 6, 6: 1 / 6, 15: 1 / 6, 21: 1 / 3})


@pytest.mark.parametrize("largest", [9, 30, 60])
def test_ends_are_the_outcomes_without_their_chances(largest: int) -> None:
    rng = random.Random(largest)
    kept = 0
    for _ in range(3000):
        count = rng.randint(2, 5)
        expression = tuple(rng.randint(1, 9) for _ in range(count)), tuple(rng.choice("+-*") for _ in range(count - 1))
        reached = outcomes(expression, largest)
        assert ends(*expression, largest) == (None if reached is None else {end for end, _ in reached})
        kept += reached is not None
    assert 50 < kept < 2500


@pytest.mark.parametrize(
    "settings",
    [{}, {"seed": 3}, {"min_operands": 2, "max_operands": 5, "order_matters": False}, {"largest_operand": 8}],
)
def test_the_problems_are_those_of_randint_and_choice(settings: dict[str, int]) -> None:
    data = Arithmetic(train_size=150, heldout_size=50, **settings)
    rng = random.Random(data.seed)
    expected: dict[str, None] = {}
    while len(expected) < 200:
        count = rng.randint(data.min_operands, data.max_operands)
        numbers = tuple(rng.randint(1, data.largest_operand) for _ in range(count))
        expression = numbers, tuple(rng.choice("+-*") for _ in range(count - 1))
        reached = outcomes(expression, data.largest_value)
        if reached is not None and not (data.order_matters and len(reached) == 1):
            expected[render(expression) + "="] = None
    assert [problem.prompt for problem in data.heldout() + data.train()] == list(expected)


def test_expressions_read_back_and_reduce() -> None:
    expression = parse("7+4*2-3=")
    assert render(expression) == "7+4*2-3"
    assert render(reduce_pair(expression, 0)) == "11*2-3"
    assert value(expression) == 12
    assert value(parse("9-3-2")) == 4  # from the left
    for text in ("", "7+", "a+b", "7+-4", "7 + 4"):
        with pytest.raises(ValueError, match="no expression"):
            parse(text)


def test_a_demonstration_by_the_rules() -> None:
    assert demonstrate("7+4*2-3=") == "7+8-3=15-3=12\\boxed{12}" + END_OF_TEXT
    with pytest.raises(ValueError, match="nothing to reduce"):
        demonstrate("7=")


def test_demonstrations_at_random_take_either_pair() -> None:
    rng = random.Random(0)
    written = [demonstrate("7+4*2=", rng) for _ in range(200)]
    right = written.count("7+8=15\\boxed{15}" + END_OF_TEXT)
    wrong = written.count("11*2=22\\boxed{22}" + END_OF_TEXT)
    assert right + wrong == 200
    assert 70 < right < 130  # 100 expected, standard deviation 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_size": 0}, "data.train_size is 0"),
        ({"heldout_size": -1}, "data.heldout_size -1"),
        ({"min_operands": 2}, "expected 3 <= min_operands"),
        ({"min_operands": 5}, "min_operands is 5"),
        ({"largest_operand": 61}, "expected 1 <= largest_operand <= largest_value"),
        ({"train_size": 1_000_000}, "at most 183708 exist"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(given: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Arithmetic(**given)
    assert "\n" not in str(caught.value)


def test_a_supply_that_runs_dry_says_how_many_there_were() -> None:
    with pytest.raises(UserError, match=r"only \d+ were found") as caught:
        Arithmetic(train_size=500, heldout_size=50, max_operands=3, largest_operand=4).train()
    assert "raise data.max_operands" in str(caught.value)


def test_two_operands_are_fine_where_order_does_not_matter() -> None:
    data = Arithmetic(train_size=20, heldout_size=5, min_operands=2, max_operands=2, order_matters=False)
    assert all(len(parse(str(problem.prompt))[0]) == 2 for problem in data.train())
