"""The whole analysis on the built-in policy: resuming, strides, budgets, and the fork where the first pair is taken."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr.analysis.forking.cells import START, CellKey
from rlvr.analysis.forking.ledger import Ledger
from rlvr.analysis.forking.resample import Drawer
from rlvr.analysis.forking.run import Found, Policy, find_forks
from rlvr.analysis.forking.settings import ForkSettings, Question, benchmark_question
from rlvr.analysis.scoring import open_policy
from rlvr.cli import main
from rlvr.data.expressions import parse, reduce_pair, render
from rlvr.errors import UserError
from rlvr.rewards.policy import DEFAULT
from rlvr.sampling.batched import BatchedSampler

QUESTION = Question("a sum", "2+3*4=", "14", DEFAULT)
SMALL = ForkSettings(samples=6, start_samples=10, max_tokens=48)
FILES = ("forks.csv", "forks.svg", "summary.json", "forks.html")


@pytest.fixture(scope="module")
def policy() -> Policy:
    model, tokenizer = open_policy("builtin")
    return Policy("builtin", "abc", BatchedSampler(model, tokenizer, 64))


def run(policy: Policy, out: Path, settings: ForkSettings = SMALL, budget: int | None = None, **kept: Any) -> Found:
    return find_forks(policy, kept.get("question", QUESTION), settings, out, budget, kept.get("say", lambda _: None))


def assert_same(one: Found, other: Found) -> None:
    assert one.base == other.base
    assert one.result.categories == other.result.categories
    assert one.result.changes == other.result.changes
    for first, second in zip(one.result.positions, other.result.positions, strict=True):
        assert (first.position, first.text, first.hazard, first.drift) == (
            second.position, second.text, second.hazard, second.drift,
        )  # fmt: skip
        assert np.array_equal(first.outcomes, second.outcomes)


@pytest.fixture(scope="module")
def whole(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found]:
    out = tmp_path_factory.mktemp("forks")
    return out, run(policy, out)


def test_what_is_found_is_whole(whole: tuple[Path, Found]) -> None:
    result = whole[1].result
    assert [one.position for one in result.positions] == list(range(len(whole[1].base.token_ids)))
    assert "".join(whole[1].texts).endswith("}<|endoftext|>")
    np.testing.assert_allclose([one.outcomes.sum() for one in result.positions], 1)
    alive = [one.survival for one in result.positions]
    assert alive == sorted(alive, reverse=True)
    assert result.right == "14"
    for one in result.positions:
        assert one.branches[0].token == whole[1].base.token_ids[one.position]
        if len(one.branches) == 1:
            assert one.hazard == one.distance == 0


def test_resuming_after_a_cut_line_gives_the_identical_result(
    policy: Policy, whole: tuple[Path, Found], tmp_path: Path
) -> None:
    run(policy, tmp_path)
    path = tmp_path / "outcomes.jsonl"
    data = path.read_bytes()
    assert data == (whole[0] / "outcomes.jsonl").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    said: list[str] = []
    assert_same(run(policy, tmp_path, say=said.append), whole[1])
    assert path.read_bytes() == data
    assert any("are there already" in line for line in said)


def test_a_stride_looks_at_the_same_positions_and_a_finer_one_goes_on(
    policy: Policy, whole: tuple[Path, Found], tmp_path: Path
) -> None:
    coarse = run(policy, tmp_path, replace(SMALL, stride=3))
    drawn = set(Ledger(tmp_path).known)
    assert {key.position for key in drawn} == {START, *range(0, len(coarse.base.token_ids), 3)}
    with Ledger(whole[0]) as ledger:
        known = ledger.known
    with Ledger(tmp_path) as ledger:
        assert all(ledger.known[key] == known[key] for key in drawn)
    assert [one.position for one in coarse.result.positions] == list(range(0, len(coarse.base.token_ids), 3))
    assert_same(run(policy, tmp_path), whole[1])


def test_outcomes_do_not_depend_on_the_batch(policy: Policy, whole: tuple[Path, Found], tmp_path: Path) -> None:
    narrow = replace(policy, sampler=BatchedSampler(policy.sampler.model, policy.sampler.tokenizer, 21))
    assert_same(run(narrow, tmp_path), whole[1])


def test_the_cost_is_said_before_anything_is_drawn(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    draw: Callable[..., Any] = Drawer.draw
    monkeypatch.setattr(Drawer, "draw", lambda *given: [events.append("draw"), draw(*given)][1])
    run(policy, tmp_path, say=events.append)
    before = events[: events.index("draw")]
    assert any("continuations to draw" in line for line in before)
    assert any(line.startswith("at most") and "tokens a second of a short probe" in line for line in before)


def test_more_than_the_budget_draws_nothing(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"continuations are to be drawn, but --budget is 50; take --stride \d+, which"):
        run(policy, tmp_path, budget=50)
    assert (tmp_path / "outcomes.jsonl").read_bytes() == b""
    with pytest.raises(UserError, match="take fewer --samples and --start-samples"):
        run(policy, tmp_path, budget=3)


def test_a_folder_of_other_settings_is_refused(policy: Policy, whole: tuple[Path, Found]) -> None:
    with pytest.raises(UserError, match="outcomes with samples 6, not 7"):
        run(policy, whole[0], replace(SMALL, samples=7))
    with pytest.raises(UserError, match='outcomes with model "abc", not "other"'):
        run(replace(policy, identity="other"), whole[0])
    with pytest.raises(UserError, match='outcomes with gold "14", not "13"'):
        run(policy, whole[0], question=replace(QUESTION, gold="13"))


def test_a_base_path_that_was_cut_is_refused(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="base path was cut at 4 tokens; expected an answer that ends: raise --max-tok"):
        run(policy, tmp_path, replace(SMALL, max_tokens=4))


def test_without_a_gold_answers_still_fall_apart(policy: Policy, whole: tuple[Path, Found], tmp_path: Path) -> None:
    found = run(policy, tmp_path, question=replace(QUESTION, gold=None))
    assert found.result.right is None
    assert found.result.categories == whole[1].result.categories


def test_another_temperature_and_a_sampled_base(policy: Policy, tmp_path: Path) -> None:
    """At temperature 2 more tokens are branches; entropies stay those of temperature 1."""
    found = run(policy, tmp_path, replace(SMALL, temperature=2.0, base="sampled", max_tokens=64, threshold=0.02))
    plain = run(policy, tmp_path / "plain", replace(SMALL, base="sampled", threshold=0.02))
    assert found.base.branches[0][0][1] != plain.base.branches[0][0][1]
    assert found.base.entropies[0] == pytest.approx(plain.base.entropies[0], abs=1e-5)


def test_problems_of_a_benchmark_by_index_and_id() -> None:
    first = benchmark_question("arithmetic", "0", "paper_8020")
    name = first.name.split("(")[1].rstrip(")")
    assert benchmark_question("arithmetic", name, "paper_8020") == first
    assert first.max_tokens == 48
    with pytest.raises(UserError, match=r"--problem is 512, but arithmetic has no such problem; .* from 0 to 511"):
        benchmark_question("arithmetic", "512", "paper_8020")


def test_the_command_writes_its_files_and_prints_the_forks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "forks"
    command = ["analyze", "forks", "builtin", "--prompt", "2+3*4=", "--gold", "14", "--samples", "10",
               "--start-samples", "10", "--max-tokens", "48", "--out", str(out)]  # fmt: skip
    assert main([*command, "--budget", "50"]) == 2
    assert "--stride" in capsys.readouterr().err
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "could have been" in printed
    assert "next: rlvr analyze temperatures builtin" in printed
    assert all((out / name).is_file() for name in FILES)
    rows = list(csv.DictReader((out / "forks.csv").open()))
    shares = [[float(value) for name, value in row.items() if name.startswith("o_")] for row in rows]
    np.testing.assert_allclose(np.sum(shares, axis=1), 1)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["positions"] == len(rows) == summary["base_tokens"]
    assert [row["position"] for row in rows if row["fork"] == "1"] == [str(one["position"]) for one in summary["forks"]]
    page = (out / "forks.html").read_text()
    assert "<svg" in page
    assert "://" not in page.replace("http://www.w3.org/", "")
    assert main(command) == 0
    assert json.loads((out / "summary.json").read_text()) == summary


def first_choice(prompt: str, answer: str) -> int:
    """The position at which the pair that the answer reduces first is settled, by the rules of the task alone.

    It is the last position at which the answer's first line parts from another one that was possible.
    """
    expression = parse(prompt)
    lines = [render(reduce_pair(expression, pair)) for pair in range(len(expression[1]))]
    taken = next(line for line in lines if answer.startswith(line + "=") or answer.startswith(line + "\\"))
    return max(agreed(tokens_in(taken), tokens_in(line)) for line in lines if line != taken)


def tokens_in(line: str) -> list[str]:
    import re

    return re.findall(r"[0-9]+|[-+*]", line)


def agreed(one: list[str], other: list[str]) -> int:
    """How many first tokens are the same."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_where_the_first_choice_is_made_by_hand() -> None:
    """7+4*2-3: lines 11*2-3, 7+8-3 and 7+4*-1. `7+8` parts from `11` at 0 and from `7+4*` at 2."""
    assert first_choice("7+4*2-3=", "7+8-3=15-3=12\\boxed{12}") == 2
    assert first_choice("7+4*2-3=", "11*2-3=22-3=19\\boxed{19}") == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_fork_is_where_the_first_pair_is_chosen(policy: Policy, tmp_path: Path) -> None:
    """On problems with three numbers the first pair decides everything; every path must show that one fork."""
    at_choice = 0
    prompts = ["2+3*4=", "5+2*6=", "9-2*3=", "8-1+4=", "1+6*7=", "3+5*2=", "9-4+3=", "7-2*2="]
    for index, prompt in enumerate(prompts):
        question = Question(prompt, prompt, None, DEFAULT)
        found = run(policy, tmp_path / str(index), ForkSettings(max_tokens=48), question=question)
        choice = first_choice(prompt, "".join(found.texts))
        result = found.result
        assert max(result.positions, key=lambda one: one.hazard).position == choice, prompt
        assert CellKey(choice, found.base.token_ids[choice]) in {
            CellKey(one.position, one.branches[0].token) for one in result.positions if len(one.branches) > 1
        }
        at_choice += choice in {fork.first for fork in result.forks}
    assert at_choice == len(prompts)
