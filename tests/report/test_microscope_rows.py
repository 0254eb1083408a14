"""Which completions the microscope shows, what it reads of them, and whom it asks about gaps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr.errors import UserError
from rlvr.report.microscope import build_microscope
from rlvr.report.microscope_rows import RECORD, Sample, Scores, chosen_records, chosen_rows, read_samples
from rlvr.report.microscope_scoring import Policy, asker, check_tokens, fill, sampling_policy
from rlvr.report.reading import read_run
from rlvr.rollouts.record import write_record
from tests.report.folders import record_row, write_run
from tests.report.microscope_pages import data_of, recorded, unpack


def test_groups_with_right_and_wrong_answers_come_first_and_whole() -> None:
    groups = [0, 0, 1, 1, 2, 2]
    correct = [True, True, False, None, True, False]
    assert [chosen_rows(groups, correct, count) for count in (2, 4, 5, 9)] == [
        [4, 5], [0, 1, 4, 5], [0, 1, 2, 4, 5], [0, 1, 2, 3, 4, 5],
    ]  # fmt: skip


def test_records_without_a_choice_are_spread_over_the_run() -> None:
    paths = [Path(f"step_{step:06d}.parquet") for step in range(0, 100, 10)]
    assert [path.stem[-2:] for path in chosen_records(paths, None)] == ["00", "20", "40", "70", "90"]
    assert chosen_records(paths[:1], None) == paths[:1]
    assert chosen_records([], None) == []
    assert chosen_records(paths, [30, 10, 30]) == [paths[1], paths[3]]
    with pytest.raises(UserError, match="step 5, 7 is not among the recorded ones; choose --steps from 0, 10, 20"):
        chosen_records(paths, [5, 10, 7])


def test_completions_are_shared_by_the_steps(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", rows=4, recorded=3))
    steps = lambda count: [one.facts["step"] for one in read_samples(run, None, count)[0]]  # noqa: E731
    assert steps(6) == [1, 1, 6, 6, 12, 12]
    assert steps(4) == [1, 1, 6, 12]
    assert steps(2) == [1, 6]
    assert len(steps(100)) == 12


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", recorded=2)
    with pytest.raises(UserError, match="--completions is 0; expected at least 1"):
        read_samples(read_run(folder), None, 0)
    for path in (folder / "rollouts").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"no completion to show: rollouts/step_000001\.parquet could not be read"):
        read_samples(read_run(folder), None, 5)
    for path in (folder / "rollouts").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"it holds no record, so rollouts\.record\.every was 0"):
        read_samples(read_run(folder), None, 5)


def test_a_broken_record_is_named_and_the_others_stand(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", recorded=2)
    (folder / "rollouts" / "step_000001.parquet").write_bytes(b"nothing")
    short = record_row(2, 0, [1, 2, 3], kept=[True])
    write_record([short], folder / "rollouts", 2)
    samples, remarks = read_samples(read_run(folder), None, 8)
    assert {sample.facts["step"] for sample in samples} == {12}
    assert [line.split(" ")[0] for line in remarks] == ["rollouts/step_000001.parquet", "rollouts/step_000002.parquet"]
    assert "ValueError" in remarks[1]


def test_columns_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", recorded=1)
    extra = recorded(3, seed=2) | {"ratio": [1.0, None, 0.5]}
    rows = [
        record_row(3, 0, [5, 6, 7], **extra),
        record_row(3, 1, [], **recorded(0)),
        record_row(3, 2, [1, 2], entropies=None, logprobs=None,
                   ktae=None, ratio=None, top_ids=None, top_logprobs=None),
    ]  # fmt: skip
    write_record(rows, folder / "rollouts", 3)
    full, empty, bare = read_samples(read_run(folder), [3], 9)[0]
    assert full.token_ids.tolist() == [5, 6, 7]
    assert full.kept.tolist() == [True, False, False]
    assert full.advantages.tolist() == [1.5] * 3
    np.testing.assert_array_equal(full.ratio, [1.0, np.nan, 0.5])
    assert full.scores.top_ids is not None
    assert full.scores.top_ids.tolist() == extra["top_ids"]
    assert (full.scores.by, full.scores.top_by, full.scores.complete) == (RECORD, RECORD, True)
    assert (len(empty.token_ids), empty.scores) == (0, Scores())
    assert (bare.scores, bare.ktae, bare.ratio, bare.kept.tolist()) == (Scores(), None, None, [True, False])


def run_with_checkpoints(folder: Path, *steps: int) -> Any:
    for step in steps:
        place = folder / "checkpoints" / f"checkpoint-{step}"
        place.mkdir(parents=True)
        (place / "rlvr_state_0.pt").write_bytes(b"")
    return read_run(folder)


def test_the_policy_asked_is_never_later_than_the_one_that_sampled(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    run = run_with_checkpoints(folder, 5, 10)
    start = str(folder / "policy")
    assert sampling_policy(run, 1) == Policy(start, f"the start ({start})")
    assert sampling_policy(run, 2) == Policy(start, f"the start ({start}), 1 step before")
    assert sampling_policy(run, 5) == Policy(start, f"the start ({start}), 4 steps before")
    assert sampling_policy(run, 6) == Policy(str(folder / "checkpoints/checkpoint-5"), "checkpoints/checkpoint-5")
    label = "checkpoints/checkpoint-10, 20 steps before"
    assert sampling_policy(run, 31) == Policy(str(folder / "checkpoints/checkpoint-10"), label)
    (folder / "config.yaml").unlink()
    assert sampling_policy(read_run(folder), 3) is None


def row(step: int, scores: Scores, length: int = 2) -> Sample:
    ids = np.ones(length, np.int32)
    return Sample(record_row(step, 0, ids.tolist()), ids, ids > 0, ids / 2, None, None, scores)


ANSWER = Scores(np.array([3.0, 4.0]), np.array([-3.0, -4.0]), "asked", np.ones((2, 5)), np.zeros((2, 5)), "asked")
HALF = Scores(np.array([1.0, 2.0]), np.array([-1.0, -2.0]), RECORD)


def test_gaps_are_filled_and_what_was_recorded_stays(tmp_path: Path) -> None:
    run = run_with_checkpoints(write_run(tmp_path / "run"), 5)
    asked: list[tuple[str, int]] = []

    def ask(place: str, samples: Any) -> list[Scores]:
        asked.append((Path(place).name, len(samples)))
        return [ANSWER] * len(samples)

    whole = replace(ANSWER, by=RECORD, top_by=RECORD)
    samples = [row(1, HALF), row(6, HALF), row(6, Scores()), row(6, whole), row(6, Scores(), length=0)]
    filled, remarks = fill(run, samples, ask)
    assert asked == [("policy", 1), ("checkpoint-5", 2)]
    assert remarks == []
    assert filled[1].scores.entropies is HALF.entropies
    assert (filled[1].scores.by, filled[1].scores.top_by) == (RECORD, "checkpoints/checkpoint-5")
    assert (filled[2].scores.entropies is ANSWER.entropies, filled[2].scores.by) == (True, "checkpoints/checkpoint-5")
    assert [filled[index] is samples[index] for index in (3, 4)] == [True, True], "nothing to ask"


def test_a_policy_that_cannot_be_asked_leaves_a_gap_and_a_sentence(tmp_path: Path) -> None:
    def ask(place: str, samples: Any) -> list[Scores]:
        raise UserError("no such model")

    folder = write_run(tmp_path / "run")
    filled, remarks = fill(read_run(folder), [row(1, HALF)], ask)
    assert filled[0].scores == HALF
    assert remarks == [f"1 completions have gaps that {folder / 'policy'} could not fill: no such model."]
    (folder / "config.yaml").unlink()
    assert "does not say which policy to ask" in fill(read_run(folder), [row(1, HALF)], ask)[1][0]


class Reads:
    """A tokenizer that reads every token as one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self, ids: list[int], **kwargs: Any) -> str:
        return self.text * len(ids)


def test_policies_that_read_the_tokens_otherwise_are_refused() -> None:
    check_tokens("B", Reads("a"), 9, [[8, 1], []], lambda ids: "a" * len(ids))
    check_tokens("B", Reads("a"), 9, [[8]], None)
    with pytest.raises(UserError, match="B has 8 tokens, but token 8 was recorded"):
        check_tokens("B", Reads("a"), 8, [[1], [8]], None)
    with pytest.raises(UserError, match="B reads recorded tokens as 'bb', the run as 'aa'"):
        check_tokens("B", Reads("b"), 9, [[8, 1]], lambda ids: "a" * len(ids))


def test_scores_are_those_of_the_models_own_logits_at_the_temperature_of_the_run(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlvr.assets import base_policy_path
    from rlvr.report.completions import tokenizer_places
    from rlvr.report.tokens import load_decoder

    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text("model: {path: builtin}\nrollouts: {temperature: 0.5}\n")
    run, tokenizer = read_run(folder), AutoTokenizer.from_pretrained(base_policy_path())
    prompt, ids = tokenizer("1+2=")["input_ids"], tokenizer("3+4=7", add_special_tokens=False)["input_ids"]
    one = replace(row(1, Scores()), token_ids=np.array(ids, np.int32))
    one = replace(one, facts=one.facts | {"prompt": "1+2="})
    said: list[str] = []
    [found] = asker(run, load_decoder(tokenizer_places(run)).decode, said.append)("builtin", [one])
    assert said == [f"builtin scores 1 completions, {len(ids)} tokens"]
    model = AutoModelForCausalLM.from_pretrained(base_policy_path(), dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].double() / 0.5
    logps = torch.log_softmax(logits, 1)
    np.testing.assert_allclose(found.entropies, -(logps.exp() * logps).sum(1), atol=1e-5)
    np.testing.assert_allclose(found.logprobs, logps[range(len(ids)), ids], atol=1e-5)
    np.testing.assert_allclose(found.top_logprobs, logps.topk(5).values, atol=1e-5)
    assert (found.by, found.top_by) == ("builtin", "builtin")


def test_policies_that_are_asked_stand_in_the_place_of_the_record_and_beside_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", recorded=1)
    (folder / "config.yaml").write_text("model: {path: builtin}\nrollouts: {temperature: 1.0}\n")
    write_record([record_row(1, row, [5, 6, 7 + row]) for row in range(3)], folder / "rollouts", 1)
    beside = data_of(build_microscope(folder, steps=[1], against="builtin").read_text())
    assert [one["by"] for one in beside["completions"]] == [[RECORD, "builtin"]] * 3
    assert [one["top_by"] for one in beside["completions"]] == [["the start (builtin)", "builtin"]] * 3
    columns = {name: unpack(column) for name, column in beside["columns"].items() if name != "kept"}
    np.testing.assert_array_equal(columns["top"], columns["b_top"], "the start of the run is the built-in policy")
    np.testing.assert_allclose(columns["entropy"], [0, 1 / 3, 2 / 3] * 3, rtol=2**-11)
    replaced = data_of(build_microscope(folder, steps=[1], score_with="builtin").read_text())
    assert [one["by"] for one in replaced["completions"]] == [["builtin"]] * 3
    np.testing.assert_array_equal(unpack(replaced["columns"]["entropy"]), columns["b_entropy"])
    left_open = data_of(build_microscope(folder, steps=[1], scoring=False).read_text())
    assert [one["top_by"] for one in left_open["completions"]] == [[None]] * 3
    with pytest.raises(UserError, match="nowhere/at/all"):
        build_microscope(folder, steps=[1], against="nowhere/at/all")
