"""`rlvr analyze`: from a run to a table, a CSV file and a figure."""

import csv
from pathlib import Path

import numpy as np
import pytest

from rlvr.analysis.commands import ACTIONS
from rlvr.cli import main
from rlvr.rollouts.record import read_record
from tests.analysis.made_records import made_row, made_run
from tests.evaluation.test_scores import make_cell
from tests.evaluation.tiny import make_tokenizer, save_model

Capture = pytest.CaptureFixture[str]


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two recorded steps, forty completions each, over the characters of the tiny tokenizer."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("runs") / "x"
    steps = {}
    for step in (1, 11):
        rows = []
        for row in range(40):
            correct = bool(random.random() < 0.6)
            ids = random.integers(4, 100, 12).tolist()
            entropies = (random.exponential(0.2, 12) + 0.08 * (not correct)).tolist()
            answer = "1" if correct else str(row % 3)
            rows.append(made_row(row, entropies, ids, correct=correct, answer=answer or "0", group=row // 4, step=step))
        steps[step] = rows
    made_run(folder, steps)
    from rlvr.config.compose import compose, write_config

    write_config(compose([]), folder / "config.yaml")
    return folder


def analyze(*words: object) -> int:
    return main(["analyze", *map(str, words)])


def test_distribution(run: Path, capsys: Capture) -> None:
    assert analyze("distribution", run) == 0
    said = capsys.readouterr().out
    rows = table_of(run / "analysis" / "distribution.csv")
    values = np.concatenate([row["entropies"] for file in (run / "rollouts").iterdir() for row in read_record(file)])
    numbers = {row["kind"]: float(row["value"]) for row in rows if row["kind"] != "bin"}
    assert numbers["tokens"] == values.size == 960
    assert numbers["percentile 80"] == pytest.approx(np.percentile(values, 80), rel=1e-5)
    assert numbers["share below 0.01"] == pytest.approx((values < 0.01).mean())
    assert sum(float(row["value"]) for row in rows if row["kind"] == "bin") == 960
    assert (run / "analysis" / "distribution.svg").read_text().startswith("<?xml")
    assert "80 completions of 2 records, steps 1 to 11: as many policies, pooled" in said
    assert "50.64 % below 0.01 nats" in said
    assert f"next: rlvr analyze tokens {run}" in said


def test_tokens_with_their_texts(run: Path, tmp_path: Path, capsys: Capture) -> None:
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    assert analyze("tokens", run, "--minimum", 5, "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path) == 0
    rows = table_of(tmp_path / "tokens.csv")
    recorded = [row for file in (run / "rollouts").iterdir() for row in read_record(file)]
    ids = np.concatenate([row["token_ids"] for row in recorded])
    entropies = np.concatenate([row["entropies"] for row in recorded])
    assert {int(row["token_id"]) for row in rows} == {one for one in set(ids.tolist()) if (ids == one).sum() >= 5}
    first = rows[0]
    assert float(first["mean_entropy"]) == pytest.approx(entropies[ids == int(first["token_id"])].mean(), rel=1e-5)
    assert float(first["mean_entropy"]) == max(float(row["mean_entropy"]) for row in rows)
    assert {row["text"] for row in rows if row["token_id"] == "38"} <= {"A"}
    assert float(first["kept_share"]) == (int(first["token_id"]) % 2 == 0)
    assert "Texts of tokens" in capsys.readouterr().out


def test_traces(run: Path, tmp_path: Path) -> None:
    assert analyze("traces", run, "--out", tmp_path, "--format", "png") == 0
    rows = table_of(tmp_path / "traces.csv")
    assert [row["step"] for row in rows] == ["1", "11"]
    values = np.concatenate([row["entropies"] for row in read_record(run / "rollouts" / "step_000011.parquet")])
    assert float(rows[1]["p95"]) == pytest.approx(np.percentile(values, 95), rel=1e-5)
    assert float(rows[1]["p100"]) == pytest.approx(values.max(), rel=1e-5)
    assert (tmp_path / "traces.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("policies")
    return [save_model(folder / str(seed), seed) for seed in (0, 1)]


def test_overlap(run: Path, policies: list[Path], tmp_path: Path, capsys: Capture) -> None:
    a, b = policies
    assert analyze("overlap", run, "--steps", "last", "--checkpoints", a, b, a, "--out", tmp_path) == 0
    rows = table_of(tmp_path / "overlap.csv")
    shares = np.array([float(row["overlap"]) for row in rows]).reshape(3, 3)
    assert np.diag(shares).tolist() == [1.0, 1.0, 1.0]
    assert shares[0, 2] == shares[2, 0] == 1.0  # the same weights
    assert shares[0, 1] == shares[1, 0] < 0.6
    assert rows[0]["tokens"] == "480"
    said = capsys.readouterr().out
    assert "chance is 20.0 %" in said
    assert f"next: rlvr analyze drift {run} --before {a} --after {a}" in said


def test_drift(run: Path, policies: list[Path], tmp_path: Path) -> None:
    a, b = policies
    assert analyze("drift", run, "--before", a, "--after", b, "--out", tmp_path / "ab") == 0
    assert analyze("drift", run, "--before", a, "--after", a, "--out", tmp_path / "aa") == 0
    rows = table_of(tmp_path / "ab" / "drift.csv")
    assert [int(row["tokens"]) for row in rows] == [48] * 20
    assert all(float(row["standard_error"]) > 0 for row in rows)
    lows = [float(row["low"]) for row in rows]
    assert lows == sorted(lows)
    assert {float(row["mean_change"]) for row in table_of(tmp_path / "aa" / "drift.csv")} == {0.0}


def test_critical(run: Path, policies: list[Path], tmp_path: Path, capsys: Capture) -> None:
    a, b = policies
    words = ("critical", run, "--positive", a, "--negative", b, "--completions", 5, "--out", tmp_path)
    assert analyze(*words) == 0
    rows = table_of(tmp_path / "critical.csv")
    assert len(rows) == 60  # five wrong completions of twelve tokens
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores)
    recorded = read_record(run / "rollouts" / rows[0]["file"])[int(rows[0]["row"])]
    assert recorded["correct"] is False
    assert recorded["token_ids"][int(rows[0]["position"])] == int(rows[0]["token_id"])
    assert "Lowest of 60 scores in 5 wrong completions" in capsys.readouterr().out


def test_errors_of_a_record_and_of_a_ledger(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert analyze("errors", run, "--by", "step", "--resamples", 200, "--out", tmp_path / "record") == 0
    rows = table_of(tmp_path / "record" / "errors.csv")
    assert {row["completions_of"] for row in rows} == {"all", "1", "11"}
    assert {row["predictor"] for row in rows} == {
        "mean token entropy", "max token entropy", "semantic entropy", "length"
    }  # fmt: skip
    mean = next(row for row in rows if (row["completions_of"], row["predictor"]) == ("all", "mean token entropy"))
    assert 0.6 < float(mean["low"]) < float(mean["auroc"]) < float(mean["high"])
    length = next(row for row in rows if (row["completions_of"], row["predictor"]) == ("all", "length"))
    assert float(length["auroc"]) == 0.5  # all are as long
    make_cell(tmp_path / "evaluations", "sums", "x", None, {"p": "++--", "q": "--n-", "r": "++++"})
    words = ("errors", tmp_path / "evaluations", "--protocol", "paper_8020", "--out", tmp_path / "ledger")
    assert analyze(*words) == 0
    assert {row["predictor"] for row in table_of(tmp_path / "ledger" / "errors.csv")} == {"semantic entropy", "length"}
    assert "A ledger holds no token entropies" in capsys.readouterr().out


def test_sampled_answers_are_a_record(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "answers"
    assert analyze("sample", "model=builtin", "limit=3", "samples=4", "max_tokens=40", "--out", out) == 0
    assert f"next: rlvr analyze errors {out}" in capsys.readouterr().out
    rows = read_record(out / "step_000000.parquet")
    assert [row["group"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert [row["row"] for row in rows] == list(range(12))
    assert {row["benchmark"] for row in rows} == {"arithmetic"}
    assert all(len(row["entropies"]) == len(row["token_ids"]) == len(row["logprobs"]) > 0 for row in rows)
    from rlvr.analysis.scoring import open_policy, prompt_ids_of, score_completions

    model, tokenizer = open_policy("builtin")
    prompts = [prompt_ids_of(tokenizer, row["prompt"]) for row in rows]
    for one, row in zip(score_completions(model, prompts, [row["token_ids"] for row in rows]), rows, strict=True):
        np.testing.assert_allclose(one.entropies, row["entropies"], atol=1e-4)
    assert analyze("errors", out, "--resamples", 100, "--out", tmp_path / "a") == 0
    assert analyze("sample", "--out", out) == 2
    assert "exists; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distribution", "nowhere"], "nowhere holds no recorded rollouts; expected a run folder"),
        (["tokens", "RUN", "--minimum", "10000"], "no token stands 10000 times among the 960 scored ones"),
        (["tokens", "RUN", "--tokenizer", "nowhere"], "--tokenizer nowhere cannot be loaded"),
        (["traces", "RUN", "RUN/rollouts/../rollouts"], "traces need one file a step"),
        (["overlap", "RUN", "--checkpoints", "builtin", "--keep", "20"], "--keep is 20.0; expected a share"),
        (["overlap", "RUN", "--checkpoints", "./nowhere"], "model=./nowhere does not exist"),
        (["overlap", "RUN", "--checkpoints", "builtin", "--completions", "0"], "--completions is 0"),
        (["drift", "RUN", "--before", "builtin", "--after", "builtin", "--temperature", "0"], "--temperature is 0.0"),
        (["critical", "RUN", "--positive", "builtin", "--negative", "builtin", "--beta", "-1"], "--beta is -1.0"),
        (["errors", "RUN", "--resamples", "3"], "--resamples is 3; expected at least 100"),
        (["errors", "RUN", "--protocol", "dapo"], "--protocol dapo chooses among the gradings of a ledger, and"),
        (["sample", "temperature=0", "--out", "OUT"], "temperature=0 draws without chance"),
        (["sample", "backend=vllm", "--out", "OUT"], "entropies are recorded by backend=transformers"),
        (["sample", "model=[builtin,RUN]", "--out", "OUT"], "complete checkpoint"),
    ],
)
def test_mistakes_are_one_line(run: Path, tmp_path: Path, words: list[str], said: str, capfd: Capture) -> None:
    given = [word.replace("RUN", str(run)).replace("OUT", str(tmp_path / "out")) for word in words]
    assert main(["analyze", *given]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_policies_with_other_tokens_are_refused(
    run: Path, policies: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    words = ["overlap", run, "--checkpoints", policies[0], "builtin", "--out", tmp_path]
    assert analyze(*words) == 2
    assert "the tokenizer of builtin has other tokens than that of the first policy" in capsys.readouterr().err


def test_every_action_has_a_parser(capsys: Capture) -> None:
    for name in ACTIONS:
        with pytest.raises(SystemExit) as ended:
            main(["analyze", name, "--help"])
        assert ended.value.code == 0
    assert set(ACTIONS) >= {
        "distribution", "tokens", "traces", "overlap", "drift", "critical", "errors", "sample"
    }  # fmt: skip
