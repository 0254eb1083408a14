"""Contamination by hand: planted copies, changed words, templates, phrasing in common; and the table."""

import csv
import io
import json
import random
import tracemalloc
from pathlib import Path
from string import ascii_lowercase

import pytest
from rich.console import Console

from rlvr.data.arithmetic import Arithmetic
from rlvr.data.base import Problem, Prompt
from rlvr.data.templates import BOXED_INSTRUCTION, render_prompt
from rlvr.errors import UserError
from rlvr.evaluation.benchmarks import BenchmarkProblem, load_benchmark
from rlvr.evaluation.contamination import (
    COMMON,
    Overlap,
    find_overlaps,
    find_overlaps_of,
    prompt_text,
    training_prompts,
    words_of,
)
from rlvr.evaluation.contamination_table import COLUMNS, contamination_notes, show_contamination
from tests.evaluation.test_benchmarks import COUNTS, FILES

LETTERS = list(ascii_lowercase)


def benchmark(*questions: Prompt) -> list[BenchmarkProblem]:
    return [BenchmarkProblem(f"q{index}", question, "1") for index, question in enumerate(questions)]


def word(number: int) -> str:
    """A different word of letters for each number."""
    return LETTERS[number // 676 % 26] + LETTERS[number // 26 % 26] + LETTERS[number % 26] + "ous"


def text(start: int, count: int) -> str:
    return " ".join(word(number) for number in range(start, start + count))


def overlaps(prompts: list[str], *questions: Prompt, n: int = 13) -> list[Overlap]:
    return find_overlaps([(f"t{index}", prompt) for index, prompt in enumerate(prompts)], benchmark(*questions), n)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Find $x$, if  x+2y=3.", "find x if x + 2 y = 3"),
        (r"$\dfrac{1}{2}\,\mathrm{cm}$", "frac 1 2 cm"),
        (r"\left( 3, \frac{\pi}{2} \right)", "3 frac pi 2"),
        ("12,345 and 1,234,567 and 3.50 and 1,23", "12345 and 1234567 and 3.50 and 1 23"),
        (r"\$1{,}000 \cdot 2 \times 3 \leq 7", "1000 * 2 * 3 le 7"),
        ("A well-known x-axis, y-z", "a well known x axis y - z"),
        ("Janet\u2019s \u211d \uff12\u2212\uff11 x\u00b2", "janet s r 2 - 1 x 2"),
        ("x^{2}", "x 2"),
        (r"\lefteqn \leftarrow \texture", "lefteqn leftarrow texture"),
    ],
)
def test_words(line: str, words: str) -> None:
    assert words_of(line) == words.split()


def test_a_planted_copy_is_found_word_for_word() -> None:
    question = f"{text(0, 20)} 7."
    (found,) = overlaps([text(100, 50), f"{text(200, 9)} {question.upper()} {text(300, 9)}", text(400, 50)], question)
    assert (found.problem_id, found.coverage, found.exact, found.prompt_id, found.prompts) == ("q0", 1.0, True, "t1", 1)
    assert found.contaminated
    assert overlaps([text(100, 50)], question) == []


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        (0, 7),  # 20 words have 8 runs of 13; the first word is in one of them
        (2, 5),
        (19, 7),
        (12, 0),  # words 7 to 12 are in all 8
        (7, 0),
    ],
)
def test_one_changed_word_takes_the_runs_that_hold_it(changed: int, left: int) -> None:
    words = text(0, 20).split()
    words[changed] = "other"
    found = overlaps([" ".join(words)], text(0, 20))
    assert [(one.coverage, one.exact, one.contaminated) for one in found] == (
        [(left / 8, False, left >= 4)] if left else []
    )


def test_coverage_is_that_of_the_best_single_prompt() -> None:
    question = text(0, 32)  # 20 runs of 13
    first, second = text(0, 20), text(10, 22)  # 8 and 10 of them
    (found,) = overlaps([first, second, f"{first} x {second}"], question)
    assert (found.coverage, found.prompts, found.prompt_id, found.exact) == (18 / 20, 3, "t2", False)
    (found,) = overlaps([first, second], question)
    assert (found.coverage, found.prompt_id, found.contaminated) == (0.5, "t1", True)


def test_every_run_but_not_in_a_row_is_not_exact() -> None:
    question = text(0, 15)
    (found,) = overlaps([f"{text(0, 14)} and {text(1, 14)}"], question)
    assert (found.coverage, found.exact) == (1.0, False)


def test_the_order_of_the_prompts_does_not_matter() -> None:
    rng = random.Random(0)
    questions = [text(100 * number, 30) for number in range(20)]
    prompts = [(f"t{number}", text(rng.randrange(2000), 60)) for number in range(300)]
    prompts += [("copy b", questions[3]), ("copy a", questions[3])]
    found = find_overlaps(prompts, benchmark(*questions))
    assert len(found) > 10
    assert next(one for one in found if one.problem_id == "q3").prompt_id == "copy a"
    for _ in range(3):
        rng.shuffle(prompts)
        assert find_overlaps(iter(prompts), benchmark(*questions)) == found


def test_against_a_slow_count() -> None:
    rng = random.Random(1)
    questions = [" ".join(rng.choices(LETTERS[:3], k=rng.randint(4, 12))) for _ in range(2)]
    prompts = [" ".join(rng.choices(LETTERS[:3], k=30)) for _ in range(40)]

    def runs(line: str) -> set[tuple[str, ...]]:
        words = line.split()
        return {tuple(words[start : start + 4]) for start in range(len(words) - 3)}

    expected = {}
    for number, question in enumerate(questions):
        shares = [len(runs(question) & runs(prompt)) / len(runs(question)) for prompt in prompts]
        if any(shares):
            expected[f"q{number}"] = (max(shares), sum(share > 0 for share in shares))
    found = overlaps(prompts, *questions, n=4)
    assert {one.problem_id: (one.coverage, one.prompts) for one in found} == expected
    assert len(expected) == 2


def test_a_short_question_is_compared_whole() -> None:
    question = r"Compute $\sin 60^\circ$."
    same = [r"compute \sin  60^\circ", f"User:\n{question}\nShow your work!\n\nAssistant:\n", f"Question: {question}"]
    assert [one.prompts for one in overlaps(same, question)] == [3]
    assert overlaps([r"Compute $\sin 60^\circ + \cos 60^\circ$.", r"Compute $\sin 61^\circ$.", ""], question) == []
    (found,) = overlaps(same[:1], question)
    assert (found.coverage, found.exact, found.contaminated) == (1.0, True, True)


def test_signs_tell_sums_apart() -> None:
    assert overlaps(["7-4*2+3=", "17+4*2-3=", "7+4*2-3+1="], "7+4*2-3=") == []
    assert len(overlaps(["7+4*2-3="], "7+4*2-3=")) == 1


def test_arithmetic_is_not_contaminated_by_its_training_problems() -> None:
    data = Arithmetic(train_size=2000, heldout_size=200)
    asked = benchmark(*(problem.prompt for problem in data.heldout()))
    assert find_overlaps(training_prompts(data.train()), asked) == []
    assert len(find_overlaps(training_prompts(data.heldout()[:5]), asked)) == 5


DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{question}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)


@pytest.mark.parametrize(
    "template", ["none", "paper_8020", "qwen_boxed", "chat", DAPO, "<|im_start|>user\n{question}<|im_end|>"]
)
@pytest.mark.parametrize("length", [6, 20])
def test_templates_round_the_question(template: str, length: int) -> None:
    wrapped = [Problem(render_prompt(text(start, length), template), "1") for start in (0, 500)]
    (found,) = find_overlaps(training_prompts(wrapped), benchmark(text(0, length)))
    assert (found.exact, found.coverage, found.prompts) == (True, 1.0, 1)
    assert found.prompt_id == f"{wrapped[0].prompt_id} (problem 0)"


@pytest.mark.parametrize("template", ["paper_8020", "qwen_boxed", DAPO])
def test_instructions_are_no_overlap(template: str) -> None:
    prompts = training_prompts([Problem(render_prompt(text(500, 20), template), "1")])
    asked = benchmark(render_prompt(text(0, 5), template), f"{text(30, 20)} {BOXED_INSTRUCTION}", BOXED_INSTRUCTION)
    assert find_overlaps(prompts, asked) == []


def test_a_benchmark_with_instructions_is_found_without_them() -> None:
    for ending in ("", f" {BOXED_INSTRUCTION}", f"\n{BOXED_INSTRUCTION}"):
        (found,) = overlaps([text(0, 20)], text(0, 20) + ending)
        assert (found.exact, found.coverage) == (True, 1.0)
        assert overlaps([f"{text(60, 20)} {text(18, 2)}{ending}"], text(0, 20) + ending) == []


def test_phrasing_that_several_problems_share_tells_nothing() -> None:
    phrase = text(1000, 15)  # 3 runs of 13
    questions = [f"{text(100 * number, 15)} {phrase}" for number in range(COMMON)]
    assert overlaps([phrase], *questions) == []
    assert [one.problem_id for one in overlaps([questions[1]], *questions)] == ["q1"]
    # In fewer problems it counts: 3 of 30 - 12 = 18 runs.
    assert [one.coverage for one in overlaps([phrase], *questions[: COMMON - 1])] == [3 / 18] * (COMMON - 1)


def test_a_question_of_nothing_but_common_phrasing_has_to_be_there_whole() -> None:
    context = text(0, 20)
    questions = [context, f"{context} {text(100, 20)}", f"{context} {text(200, 20)}"]
    assert [one.problem_id for one in overlaps([text(0, 19)], *questions)] == []
    (found,) = overlaps([f"{text(300, 5)} {context} {text(400, 5)}"], *questions)
    assert (found.problem_id, found.exact) == ("q0", True)


def test_benchmarks_do_not_make_each_others_phrasing_common() -> None:
    same = {f"b{number}": benchmark(text(0, 20)) for number in range(COMMON + 1)}
    found = find_overlaps_of([("t", text(0, 20))], same)
    assert [(name, len(one), one[0].exact) for name, one in found.items()] == [(name, 1, True) for name in same]


def test_the_system_prompt_of_a_chat_is_not_read() -> None:
    chat = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    assert prompt_text(chat) == "a\nb"


def test_no_n_gram_of_no_words() -> None:
    with pytest.raises(UserError, match=r"n is 0; expected .* at least 1, e.g. n=13"):
        overlaps(["a"], "a", n=0)


def test_prompts_stream_past_the_index_in_bounded_memory() -> None:
    rng = random.Random(0)
    length = len(text(0, 100))
    prompts = ((str(number), text(rng.randrange(17000), 100)) for number in range(2000))
    tracemalloc.start()
    try:
        assert find_overlaps(prompts, benchmark(*(f"{text(50 * number, 30)} x" for number in range(5)))) != []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 2000 * length > 1_000_000
    assert peak < 500_000


@pytest.mark.skipif(not FILES.is_dir(), reason=f"{FILES} is not there; set RLVR_BENCHMARKS to the folder of the files")
def test_every_real_problem_is_found_in_a_copy_with_a_template_and_none_in_scrambled_words() -> None:
    asked = {name: load_benchmark(name, FILES).problems for name in COUNTS}
    copies = [
        Problem(render_prompt(problem.question, "paper_8020"), problem.gold)
        for problems in asked.values()
        for problem in problems
    ]
    found = find_overlaps_of(training_prompts(copies), asked)
    assert {name: sum(one.exact for one in overlap) for name, overlap in found.items()} == COUNTS
    rng = random.Random(0)
    scrambled = []
    for problem in copies:
        words = words_of(prompt_text(problem.prompt))
        rng.shuffle(words)
        scrambled.append((problem.prompt_id, " ".join(words)))
    assert not any(one.contaminated for overlap in find_overlaps_of(scrambled, asked).values() for one in overlap)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two problems for aime25, one of them with brackets that look like markup."""
    rows = [{"problem": f"{text(0, 20)} [bold] x", "answer": "1"}, {"problem": text(100, 20), "answer": "2"}]
    (tmp_path / "aime25.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def problems() -> list[Problem]:
    return [Problem(text(500, 30), "3"), Problem(f"{text(0, 20)} [bold] x", "1"), Problem(text(106, 30), "3")]


def test_the_table_and_the_file(folder: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    path = folder / "found.csv"
    count = show_contamination(problems(), ["aime25"], folder, csv_path=path, console=console)
    assert count == 1  # the other shares 2 of 8 runs
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "n-grams of 13 words" in shown
    rates = next(line for line in shown.splitlines() if "aime25" in line)
    assert [cell.strip() for cell in rates.strip("\u2502 ").split("\u2502")] == ["aime25", "2", "2", "1", "1"]
    assert "the worst 2 of 2" in shown
    assert "25%" in shown
    rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [row[2:5] for row in rows[1:]] == [["1.0000", "True", "1"], ["0.2500", "False", "1"]]
    assert rows[1][5:] == [
        f"{problems()[1].prompt_id} (problem 1)",
        f"{text(0, 20)} [bold] x",
        f"{text(0, 20)} [bold] x",
    ]


def test_nothing_found_and_nowhere_to_write(folder: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    assert show_contamination(problems()[:1], ["aime25"], folder, console=console) == 0
    assert "the worst" not in console.file.getvalue()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"found.csv cannot be written"):
        show_contamination(problems(), ["aime25"], folder, csv_path=folder / "no" / "found.csv", console=console)
    with pytest.raises(UserError, match=r"benchmarks is empty"):
        show_contamination(problems(), [], folder)
    with pytest.raises(UserError, match=r"names aime25 twice"):
        show_contamination(problems(), ["aime25", "aime25"], folder)


def test_the_lines_for_a_run(folder: Path) -> None:
    found, clean = contamination_notes(problems(), ["aime25", "arithmetic"], folder)
    assert found.startswith(
        "contamination: of the 2 problems of aime25, 1 are in a training prompt by half or more, 1 word for word; "
        "2 share 13 words in a row or are shorter and the same (worst: problem "
    )
    assert f"100% of it in prompt {problems()[1].prompt_id} (problem 1))" in found
    assert clean == "contamination: none of the 512 problems of arithmetic is in the training prompts"
