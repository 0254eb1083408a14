"""What the trainer saves, refuses to save, and refuses to go on from; in this process or on two forked ranks."""

import resource
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from rlvr.checkpoints.layout import committed
from rlvr.checkpoints.manifest import measure, read_manifest, verify, write_manifest
from rlvr.errors import UserError
from rlvr.maths.finite import first_not_finite
from rlvr.trainer.facts import METRIC, code_fingerprint, data_fingerprint, tokenizer_fingerprint, wandb_run
from rlvr.trainer.saved_files import held_parts, state_bytes
from rlvr.trainer.together import from_lead, together
from tests.ranks import run_ranks
from tests.trainer.tiny import make_qwen3, make_tokenizer
from tests.trainer.tiny_run import STEPS, assert_equal_weights, history, make_trainer, train, weights

SAVING = {"save_strategy": "steps", "save_steps": 1}


class Whole:
    """A training that logs every third step and saves every one: 4 lies in the middle of a row of the log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trainer = train(folder, logging_steps=3, **SAVING)
        self.rows, self.weights = history(self.trainer), weights(self.trainer)
        self.mean_loss = self.trainer.state.log_history[-1]["train_loss"]

    def copy(self, step: int, place: Path) -> Path:
        return Path(shutil.copytree(self.folder / f"checkpoint-{step}", place / f"checkpoint-{step}"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


def resume(checkpoint: Path, folder: Path, **changes: Any) -> Any:
    return train(folder, resume=checkpoint, logging_steps=3, **changes)


def remeasured(checkpoint: Path, **facts: Any) -> Path:
    """With a manifest of what is there now."""
    old = read_manifest(checkpoint)
    write_manifest(checkpoint, measure(checkpoint, old.step, {**old.facts, **facts}))
    return checkpoint


def test_a_row_of_the_log_that_spans_the_checkpoint_and_the_mean_loss_are_those_of_the_whole_run(
    whole: Whole, tmp_path: Path
) -> None:
    resumed = resume(whole.folder / "checkpoint-4", tmp_path)
    assert [row["step"] for row in whole.rows] == [3, 6]
    assert history(resumed) == whole.rows
    assert resumed.state.log_history[-1]["train_loss"] == whole.mean_loss
    assert_equal_weights(weights(resumed), whole.weights)


def test_the_closing_speeds_count_the_steps_of_their_own_time(whole: Whole, tmp_path: Path) -> None:
    last = resume(whole.folder / "checkpoint-6", tmp_path).state.log_history[-1]
    assert last["train_steps_per_second"] == pytest.approx((STEPS - 6) / last["train_runtime"], rel=0.05, abs=2e-3)


def test_a_checkpoint_says_what_it_is_and_nothing_else_is_left(whole: Whole) -> None:
    assert sorted(committed(whole.folder)) == list(range(1, STEPS + 1))
    assert [path.name for path in whole.folder.iterdir() if path.name.startswith(".")] == []
    manifest = read_manifest(whole.folder / "checkpoint-4")
    expected = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    assert expected | {"rlvr_state_0.pt"} <= manifest.files.keys()
    facts = manifest.facts
    assert (manifest.step, facts["world_size"], facts["engine"], facts[METRIC]) == (4, 1, "torch", None)
    assert facts["code"] == code_fingerprint()
    assert facts["settings"]["args"]["learning_rate"] == 1e-2


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "rlvr_state_0.pt", "model.safetensors"]
)
def test_what_would_be_lost_in_silence_is_refused(whole: Whole, name: str, tmp_path: Path) -> None:
    checkpoint = whole.copy(2, tmp_path)
    (checkpoint / name).unlink()
    if name != "model.safetensors":  # TRL itself refuses that one
        with pytest.raises(UserError, match=rf"checkpoint-2 is damaged \({name}: missing\)"):
            resume(checkpoint, tmp_path / "out")
    remeasured(checkpoint)
    with pytest.raises((UserError, ValueError), match=rf"has no {name}|Can't find a valid checkpoint"):
        resume(checkpoint, tmp_path / "out")


def test_a_flipped_bit_is_refused(whole: Whole, tmp_path: Path) -> None:
    checkpoint = whole.copy(2, tmp_path)
    data = bytearray((checkpoint / "optimizer.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (checkpoint / "optimizer.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"checkpoint-2 is damaged \(optimizer\.pt: digest differs"):
        resume(checkpoint, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 1e-3}, r"settings\.args\.learning_rate: 0\.001 \(was 0\.01\)"),
        ({"algorithm": "grpo"}, r"settings\.selection"),
        ({"train_dataset": [{"prompt": f"t{index}", "gold": "t2"} for index in range(2, 7)]}, r"data: \w+ \(was \w+\)"),
    ],
)
def test_another_run_of_the_library_is_refused(whole: Whole, change: dict, named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"checkpoint-2 was made by another run: .*{named}"):
        resume(whole.folder / "checkpoint-2", tmp_path, **change)


def test_a_difference_that_is_allowed_by_name_passes(whole: Whole, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, learning_rate=1e-3, max_steps=3)
    trainer.saver.allow = ["settings.args.learning_rate"]
    trainer.train(resume_from_checkpoint=str(whole.folder / "checkpoint-2"))
    assert trainer.state.global_step == 3


class Spoil(TrainerCallback):
    """Puts a NaN into a weight at the end of a step."""

    def __init__(self, step: int, rank: int = 0) -> None:
        self.step, self.rank = step, rank

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == self.step and args.process_index == self.rank:
            with torch.no_grad():
                model.get_parameter("model.layers.1.mlp.up_proj.weight").view(-1)[7] = torch.nan


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **SAVING)
    trainer.add_callback(Spoil(3))
    with pytest.raises(UserError) as refused:
        trainer.train()
    said = "checkpoint-3 is not written: model.layers.1.mlp.up_proj.weight holds numbers that are not finite (rank 0); "
    assert str(refused.value).startswith(said + "checkpoint-2 is the last one before; lower optimizer.learning_rate")
    assert sorted(committed(tmp_path)) == [1, 2]


def test_the_first_tensor_is_named_and_sizes_are_counted() -> None:
    model = make_qwen3()
    assert first_not_finite(held_parts(model)) is None
    names = [name for name, _ in model.named_parameters()]
    for name, bad in ((names[5], torch.inf), (names[2], -torch.inf)):
        with torch.no_grad():
            model.get_parameter(name).view(-1)[0] = bad
        assert first_not_finite(held_parts(model)) == name
    count = sum(values.numel() for values in model.parameters())
    assert state_bytes(model) == count * 4 * 3
    model.get_parameter(names[0]).requires_grad_(False)
    assert state_bytes(model) == count * 4 * 3 - model.get_parameter(names[0]).numel() * 4 * 2


def limit_files(size: int) -> None:
    """No file may grow above so many bytes, as with `ulimit -f`: what a full disk looks like to one process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def on_full_disk(rank: int, ranks: int, folder: str, full: int, size: int) -> str:
    trainer = make_trainer(Path(folder), ranks=ranks, **SAVING)
    look = trainer.saver._check_finite

    def then_full(checkpoints: Path, step: int) -> None:
        look(checkpoints, step)
        if step == 3 and rank == full:
            limit_files(size)

    trainer.saver._check_finite = then_full
    try:
        trainer.train()
    except UserError as error:
        return str(error)
    finally:
        limit_files(resource.RLIM_INFINITY)  # what the test itself writes: the store of the process group
    return "no error"


@pytest.mark.parametrize(("ranks", "full"), [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("size", [0, 1 << 13])
def test_a_full_disk_ends_the_run_in_one_line_and_the_last_checkpoint_stays(
    ranks: int, full: int, size: int, tmp_path: Path
) -> None:
    said = run_ranks(ranks, on_full_disk, ranks, str(tmp_path), full, size)
    assert len(said) == ranks
    for line in said:
        assert line.startswith(f"checkpoint-3 could not be written to {tmp_path} ("), line
        assert "checkpoint-2 was not touched" in line
        assert "\n" not in line
    assert {step: verify(path) for step, path in committed(tmp_path).items()} == {1: [], 2: []}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_no_room_for_the_next_checkpoint_is_seen_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlvr.checkpoints.space.free_bytes", lambda path: 100)
    with pytest.raises(UserError, match=r"has 0 MiB free, but room for 1 more of 1 MiB each takes 1 MiB"):
        train(tmp_path, **SAVING)
    assert not committed(tmp_path)


class Measure(TrainerCallback):
    """Held-out accuracies by step, told as a run tells them."""

    def __init__(self, numbers: dict[int, float]) -> None:
        self.numbers, self.saver = numbers, None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.numbers:
            self.saver.measured(self.numbers[state.global_step])


def test_the_last_and_the_best_stay(tmp_path: Path) -> None:
    measure = Measure({2: 0.9, 3: 0.4, 5: 0.9, 6: 0.1})
    trainer = make_trainer(tmp_path, save_total_limit=2, **SAVING)
    trainer.add_callback(measure)
    assert trainer.saver.keep_last == 2
    measure.saver, trainer.saver.keep_best = trainer.saver, 1
    trainer.train()
    assert sorted(committed(tmp_path)) == [5, STEPS - 1, STEPS], "of 2 and 5, which are equal, the later"
    numbers = {step: read_manifest(path).facts[METRIC] for step, path in committed(tmp_path).items()}
    assert numbers == {5: 0.9, 7: None, 8: None}, "7 was not measured"


def test_a_checkpoint_that_leaves_out_the_optimizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="save_only_model=true leaves out what a run needs"):
        make_trainer(tmp_path, save_only_model=True)


def test_the_run_of_weights_and_biases_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlvr.trainer.saving import adopt_wandb

    trainer = make_trainer(tmp_path, max_steps=1, **SAVING)
    with monkeypatch.context() as during:
        during.setitem(sys.modules, "wandb", types.SimpleNamespace(run=types.SimpleNamespace(id="abc123")))
        found = wandb_run()
    monkeypatch.setattr("rlvr.trainer.saving.wandb_run", lambda: found)
    trainer.train()
    assert read_manifest(tmp_path / "checkpoint-1").facts["wandb_run"] == "abc123"
    for chosen, expected in ((None, ("abc123", "allow")), ("mine", ("mine", None))):
        environment = {} if chosen is None else {"WANDB_RUN_ID": chosen}
        monkeypatch.setattr("rlvr.trainer.saving.os.environ", environment)
        adopt_wandb("abc123")
        assert (environment.get("WANDB_RUN_ID"), environment.get("WANDB_RESUME")) == expected


def test_fingerprints_see_order_golds_and_tokens_and_nothing_that_passes() -> None:
    rows = [{"prompt": "a", "gold": "1"}, {"prompt": "b", "gold": "2"}]
    same = data_fingerprint([{"gold": "1", "prompt": "a"}, {"prompt": "b", "gold": "2"}])
    assert data_fingerprint(rows) == same
    assert data_fingerprint([{**row, "image": object()} for row in rows]) == data_fingerprint(
        [{**row, "image": object()} for row in rows]
    )
    others = [rows[::-1], rows[:1], [rows[0], {"prompt": "b", "gold": "3"}], [{"prompt": ["a"], "gold": "1"}, rows[1]]]
    assert len({same, *map(data_fingerprint, others)}) == 5
    tokenizer = make_tokenizer(23)
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["t2 t3", "t2"], padding=True, truncation=True, max_length=4)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.chat_template = "{{ messages }}"
    assert len({before, tokenizer_fingerprint(tokenizer), tokenizer_fingerprint(make_tokenizer(24))}) == 3


def on_two(rank: int) -> list[str]:
    def failing(error: Exception) -> Any:
        def action() -> None:
            if rank == 1:
                raise error

        return action

    said = []
    for error in (UserError("mend this"), OSError(28, "No space left on device")):
        try:
            together(failing(error))
        except Exception as raised:
            said.append(f"{type(raised).__name__}: {raised}")
    said.append(from_lead(lambda: f"from {rank}"))
    return said


def test_ranks_fail_together_and_learn_from_the_lead() -> None:
    first, second = run_ranks(2, on_two)
    full = "[Errno 28] No space left on device"
    assert first == ["Disagreement: mend this", f"RuntimeError: rank 1 failed: {full}", "from 0"]
    assert second == ["UserError: mend this", f"OSError: {full}", "from 0"]


def on_rank(rank: int, ranks: int, folder: str, checkpoint: str | None, allow: list[str]) -> Any:
    trainer = make_trainer(Path(folder), ranks=ranks, max_steps=6, save_strategy="steps", save_steps=3)
    trainer.saver.allow = allow
    trainer.train(resume_from_checkpoint=checkpoint)
    adam = trainer.optimizer.state_dict()["state"]
    return history(trainer), weights(trainer), trainer.stream.taken, [int(part["step"]) for part in adam.values()]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_one_process_and_several_take_over_from_each_other_with_the_moments(
    before: int, after: int, tmp_path: Path
) -> None:
    first = run_ranks(before, on_rank, before, str(tmp_path / "first"), None, [])
    checkpoint = str(tmp_path / "first/checkpoint-3")
    with pytest.raises(RuntimeError, match=rf"world_size: {after} \(was {before}\)"):
        run_ranks(after, on_rank, after, str(tmp_path / "no"), checkpoint, [])
    found = run_ranks(after, on_rank, after, str(tmp_path / "next"), checkpoint, ["world_size"])
    rows, values, taken, steps = found[0]
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert rows[:3] == first[0][0][:3]
    # Step 3 of 4 in a batch: the rest of that batch is lost, and the next one is of the prompts after it.
    assert taken == first[0][2] == 8
    assert set(steps) == {6}, "AdamW goes on with its moments"
    for other in found[1:]:
        assert_equal_weights(other[1], values)
    assert verify(tmp_path / "next/checkpoint-6") == []
