"""Ten thousand random and mutated answers: no crash, no hang, and verdicts that depend on answer and gold alone."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.rewards import grade as grading
from rlvr.rewards.breaker import Limits
from rlvr.rewards.grade import grade, grade_many
from rlvr.rewards.verdict import STATUSES, Verdict

SEEDS = [
    "15", "-3.25", "1,234,567", r"\frac{1}{2}", r"\dfrac{-3\pi}{4}", r"2\sqrt{3}", "(1, 2)", r"\{1,2,3\}", "[0, 1)",
    r"(-\infty, 3] \cup (5, \infty)", "x^2-1", "(x-1)(x+1)", r"x=\pm 2", r"50\%", r"30^\circ", r"\text{(A)}", "B",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "1e6", r"2.88 \times 10^{-19}", r"\frac12", r"3\frac{1}{2}", "11_2",
    r"e^{i\pi}", r"\sum_{k=1}^{n} k", r"\binom{5}{2}", r"\$12.50", r"5\text{ cm}", "x<3", "0.\\overline{3}", "3:2",
    r"\left(\frac{1}{2}\right)^{10}", "even", r"\emptyset", "2^{100}", r"\log_2 8", "|x|", "y = 2x + 1", "A, C", "7!",
]  # fmt: skip
PIECES = [
    "{", "}", "\\", "$", "^", "_", "&", "(", ")", "[", "]", ",", ";", ".", "=", "<", ">", "-", "+", "/", "!", "%", "|",
    "0", "9", "x", " ", "\n", "\\frac", "\\sqrt", "\\boxed{", "\\text{", "\\left(", "\\right)", "\\infty", "\\cup",
    "\\pi", "\\pm", "\\sum", "\\int", "\\begin{pmatrix}", "\\\\", "\x00", "\u200b", "\ud800", "½", "\uff11", "\u2212",
    "π", "√", "∞", "°", "<think>", "</think>", "or", "and", "None", "nan", "__import__('os')", "lambda", "10^{9}",
]  # fmt: skip
PATIENT = Limits(5.0, strikes=None, patience=None)


def mutated(chance: random.Random) -> str:
    """A known answer after a few accidents, or a string of pieces."""
    if chance.random() < 0.2:
        return "".join(chance.choice(PIECES) for _ in range(chance.randrange(1, 12)))
    text = chance.choice(SEEDS)
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(text) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            text = text[:place] + chance.choice(PIECES) + text[place:]
        elif kind == 1:
            text = text[:place] + text[place + chance.randrange(1, 4) :]
        elif kind == 2:
            text = text[:place] + chance.choice(SEEDS) + text[place:]
        else:
            text = text[:place] + text[place : place + 3] + text[place:]
    return text


def cases(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Completions and golds."""
    chance = random.Random(seed)
    frames = ["so \\boxed{%s}.", "\\boxed{%s", "%s", "<think>a</think>\\boxed{%s}", "\\boxed{1} or \\boxed{%s}"]
    weights = [20, 1, 1, 2, 1]
    completions = [chance.choices(frames, weights)[0].replace("%s", mutated(chance)) for _ in range(count)]
    golds = [chance.choice(SEEDS) if chance.random() < 0.8 else mutated(chance) for _ in range(count)]
    return completions, golds


def told(verdicts: list[Verdict]) -> list[tuple[str, str | None, str]]:
    return [(verdict.status, verdict.extracted, verdict.reason) for verdict in verdicts]


def check(count: int, seed: int) -> None:
    """Grade cases together, and then in other company: alone, in another order, on other workers."""
    completions, golds = cases(count, seed)
    grading.KNOWN.clear()
    started = time.monotonic()
    together = grade_many(completions, golds, workers=2, limits=PATIENT)
    assert time.monotonic() - started < 10 + 0.05 * count
    assert [verdict for verdict in together if verdict.status in ("crash", "timeout")] == []
    assert all(verdict.status in STATUSES and verdict.seconds >= 0 for verdict in together)
    order = list(range(count))
    random.Random(seed).shuffle(order)
    for workers, part in ((1, order[: count // 4]), (4, order[count // 4 :])):
        grading.KNOWN.clear()
        again = grade_many(
            [completions[row] for row in part], [golds[row] for row in part], workers=workers, limits=PATIENT
        )
        assert told(again) == told([together[row] for row in part])
    known = told(grade_many(completions, golds, workers=3, limits=PATIENT))  # most of it from the cache
    assert known == told(together)


def test_random_and_mutated_answers() -> None:
    check(1000, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(1, 10))
def test_many_random_and_mutated_answers(seed: int) -> None:
    check(1000, seed)


def written(number: tuple[int, int], way: int) -> str:
    """A fraction in one of several ways, all of them exact."""
    top, bottom = number
    ways = [f"{top}/{bottom}", rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{{3 * top}}}{{{3 * bottom}}}", f"{top}"]
    return ways[way] if way < 3 or bottom == 1 else ways[0]


NUMBERS = st.tuples(st.integers(-30, 30), st.integers(1, 9))


@given(NUMBERS, NUMBERS, st.integers(0, 3), st.integers(0, 3))
def test_numbers_are_judged_alike_in_both_directions(
    one: tuple[int, int], other: tuple[int, int], way: int, other_way: int
) -> None:
    mine, theirs = written(one, way), written(other, other_way)
    same = one[0] * other[1] == other[0] * one[1]
    assert grade(rf"\boxed{{{mine}}}", theirs).correct is same
    assert grade(rf"\boxed{{{theirs}}}", mine).correct is same


def test_equal_answers_are_compared_once_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    compare = grading.SHARED.compare
    monkeypatch.setattr(
        grading.SHARED,
        "compare",
        lambda tasks, *rest, **more: asked.append(len(tasks)) or compare(tasks, *rest, **more),
    )
    grading.KNOWN.clear()
    rows = [r"\boxed{\sqrt{8}x}"] * 5 + [r"\boxed{\sqrt{8}x+0}"]
    verdicts = grade_many(rows, [r"2x\sqrt{2}"] * 6)
    assert {verdict.status for verdict in verdicts} == {"correct"}
    assert sum(verdict.seconds for verdict in verdicts[1:5]) < verdicts[0].seconds
    grade_many(rows, [r"2x\sqrt{2}"] * 6)
    assert asked == [2, 0]


def test_the_cache_is_bounded_and_keeps_no_failure() -> None:
    from rlvr.rewards.cache import Cache
    from rlvr.rewards.protocol import Outcome

    cache = Cache(size=2)
    for key in "abc":
        cache.put(key, Outcome("correct"))
        cache.get("a")
    cache.put("d", Outcome("timeout"))
    cache.put("e", Outcome("crash"))
    assert len(cache) == 2
    assert [cache.get(key) is not None for key in "abcde"] == [True, False, True, False, False]
