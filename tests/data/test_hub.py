"""Hub data sets without a network: from a local folder, through a loader that fails, and the presets."""

import json
from typing import Any

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import OfflineModeIsEnabled

from rlvr.config.compose import compose
from rlvr.data.base import Problem
from rlvr.data.hub import Hub
from rlvr.data.templates import BOXED_INSTRUCTION
from rlvr.errors import UserError

PRESETS = {
    "dapo_math_17k": "BytedTsinghua-SIA/DAPO-Math-17k",
    "math": "DigitalLearningGmbH/MATH-lighteval",
    "gsm8k": "openai/gsm8k",
    "openr1_math": "open-r1/OpenR1-Math-220k",
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Rows by split, in place of the hub; `calls` of the loader under the key `calls`."""
    rows: dict[str, list[dict[str, Any]]] = {"calls": []}

    def load(path: str, subset: str | None, split: str, revision: str | None) -> datasets.Dataset:
        rows["calls"].append({"path": path, "subset": subset, "split": split, "revision": revision})
        return datasets.Dataset.from_list(rows[split])

    monkeypatch.setattr(datasets, "load_dataset", load)
    return rows


def test_a_folder_that_datasets_loads(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("sums")  # not tmp_path: datasets takes its `test_...` for the name of a split
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder.with_name("cache"))
    for split, numbers in (("train", range(10)), ("test", range(5, 12))):
        rows = [json.dumps({"problem": f"{n}+{n}?", "answer": str(2 * n)}) + "\n" for n in numbers]
        (folder / f"{split}.jsonl").write_text("".join(rows))
    data = Hub(path=str(folder), heldout_split="test")
    assert data.train() == [Problem(f"{n}+{n}?", str(2 * n)) for n in range(5)]
    assert len(data.heldout()) == 7
    with pytest.raises(UserError, match=r"data.split=tran cannot be loaded: Unknown split .*'train'.*or data.split"):
        Hub(path=str(folder), split="tran").train()
    with pytest.raises(UserError, match=r"data.heldout_split=valid cannot be loaded"):
        Hub(path=str(folder), heldout_split="valid").heldout()


def test_everything_asked_for_reaches_the_loader(served: dict[str, list[dict[str, Any]]]) -> None:
    served["train[:50%]"] = [{"question": "6*7?", "answer": "x\n#### 42"}]
    data = Hub(path="org/name", subset="main", split="train[:50%]", revision="abc")
    assert data.train() == [Problem("6*7?", "42")]
    assert served["calls"] == [{"path": "org/name", "subset": "main", "split": "train[:50%]", "revision": "abc"}]


def test_columns_and_row_numbers_of_a_data_set(served: dict[str, list[dict[str, Any]]]) -> None:
    served["train"] = [{"problem": f"{n}?", "meta": {"gold": str(n) if n != 6 else None}} for n in range(9000)]
    with pytest.raises(UserError, match=r"has the columns problem, meta.gold: no gold answer among them"):
        Hub(path="org/name").train()
    with pytest.raises(UserError, match=r"1 of 9000 rows of data.path=org/name data.split=train .*\(row 7\)"):
        Hub(path="org/name", gold_column="meta.gold").train()
    assert len(Hub(path="org/name", gold_column="meta.gold", drop_empty=True).train()) == 8999
    served["train"] = []
    with pytest.raises(UserError, match="holds no rows"):
        Hub(path="org/name").train()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled.\nMore."), "offline mode is enabled"),
        (DatasetNotFoundError("Dataset 'org/name' doesn't exist on the Hub"), "doesn't exist on the Hub"),
        (ConnectionError("Couldn't reach 'org/name' on the Hub (MaxRetryError)"), "Couldn't reach"),
        (RuntimeError("Dataset scripts are no longer supported, but found a.py"), "scripts are no longer supported"),
        (ValueError("Config name is missing.\nAvailable configs: ['main']"), "Config name is missing"),
    ],
)
def test_a_hub_that_does_not_answer_is_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=message) as caught:
        Hub(path="org/name").train()
    assert str(caught.value).startswith("data.path=org/name data.split=train cannot be loaded")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heldout_split": "train"}, "the training split"),
        ({"heldout_split": "test", "heldout_files": ["x.jsonl"]}, "both say what is held out"),
        ({"heldout_split": "test", "heldout_size": 5}, "data.heldout_split says what is held out"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Hub(path="org/name", **settings)
    with pytest.raises(UserError, match=r"data.path is empty"):
        Hub().train()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_composes_and_says_what_is_held_out(preset: str) -> None:
    data = compose([f"data={preset}", "data.limit=7"]).data
    assert isinstance(data, Hub)
    assert (data.path, data.template, data.limit) == (PRESETS[preset], "paper_8020", 7)
    assert bool(data.heldout_split) != bool(data.heldout_size)


def test_the_dapo_preset_trades_the_instructions_for_the_template(served: dict[str, list[dict[str, Any]]]) -> None:
    def row(problem: str, gold: str) -> dict[str, Any]:
        text = (
            "Solve the following math problem step by step. The last line of your response should be of the form "
            "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
            f'{problem}\n\nRemember to put your answer on its own line after "Answer:".'
        )
        return {"prompt": [{"content": text, "role": "user"}], "reward_model": {"ground_truth": gold, "style": "rule"}}

    served["train"] = [row(f"{n}+{n}?", str(2 * n)) for n in range(4)] * 5
    data = compose(["data=dapo_math_17k", "data.heldout_size=0"]).data
    assert data.train()[3] == Problem(f"User:\n3+3?\n{BOXED_INSTRUCTION}\n\nAssistant:\n", "6")
    assert len(data.train()) == 4
    assert "16 rows that repeat a prompt left out" in data.notes()[0]


def test_the_math_and_gsm8k_presets_find_their_golds(served: dict[str, list[dict[str, Any]]]) -> None:
    served["train"] = [{"problem": "6*7?", "level": "Level 1", "solution": "$\\boxed{42}$", "type": "Algebra"}]
    served["test"] = [{"problem": "1/2?", "level": "Level 1", "solution": "$\\boxed{\\frac12}$", "type": "Algebra"}]
    data = compose(["data=math"]).data
    assert [problem.gold for problem in data.train() + data.heldout()] == ["42", "\\frac12"]
    served["train"] = [{"question": "6*7?", "answer": "42.\n#### 42"}]
    served["test"] = [{"question": "1000?", "answer": "So\n#### 1,000"}]
    data = compose(["data=gsm8k"]).data
    assert [problem.gold for problem in data.train() + data.heldout()] == ["42", "1000"]
