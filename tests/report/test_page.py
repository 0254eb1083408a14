"""The page: its numbers, what it says of missing parts, and that no text of a model can act in it."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlvr.errors import UserError
from rlvr.report.completions import MOST_CHARACTERS, MOST_TOKENS, choose, first_middle_last, shortened
from rlvr.report.figures import running_mean
from rlvr.report.page import build_report
from rlvr.rollouts.record import write_record
from tests.report.folders import HOSTILE, record_row, write_run
from tests.source import ROOT

NUMBERS = [
    "a run of tests", "dapo_top20", "6.0 s", "top_entropy",
    "25.0 % (17.5 to 34.3)", "75.0 % (65.7 to 82.5)", "+50.0 points",  # Wilson intervals of 25 and 75 of 100
    "30.0 % (21.9 to 39.6)", "80.0 % (71.1 to 86.7)",
    "held-out, sampled", "generate 50%", "reward 2%", "train 38%", "6.0 s together", "The limit is 48.",
    "kept fraction of the candidates", "gradient norm, before clipping", "cut at the limit",
    "18 completions of 3 of 5 recorded steps", "the tokenizer of model.path",
    "0.333 nats, p 0.882, advantage +1.500, dropped", "0.000 nats, p 0.882, advantage -1.500, kept",
    "4 of 12 tokens kept", "reward 1", "step 1, prompt 0, completion 0", "entropy in nats",
]  # fmt: skip


class Elements(HTMLParser):
    """Collects what a browser would build."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def built(folder: Path) -> str:
    path = build_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_the_numbers_of_the_run_are_on_the_page(tmp_path: Path) -> None:
    page = built(write_run(tmp_path / "run"))
    assert [number for number in NUMBERS if number not in page] == []
    assert "ot recorded" not in page
    assert not (tmp_path / "run" / "report.partial").exists()


def test_with_metrics_alone_the_page_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seconds": 2.5, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    page = built(tmp_path)
    for remark in ("config.yaml is missing", "summary.json is missing", "rollouts/ holds no record"):
        assert remark in page
    assert page.count("Nothing recorded.") == 5, "only the update has a curve"
    assert "Not recorded: entropy, selection/entropy_kept, selection/entropy_dropped." in page
    assert page.count('<p class="absent">Not recorded.</p>') == 3, "accuracy, completions, configuration"


def test_a_run_without_a_step_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    assert "metrics.jsonl holds no step" in built(tmp_path)


def test_a_folder_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metrics\.jsonl"):
        build_report(tmp_path)


def test_a_record_that_cannot_be_read_is_named_and_the_others_stand(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "rollouts" / "step_000001.parquet").write_bytes(b"nothing")
    page = built(folder)
    assert "rollouts/step_000001.parquet could not be read" in page
    assert "12 completions of 2 of 5 recorded steps" in page


def test_without_a_tokenizer_the_page_shows_ids_and_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "policy" / "tokenizer.json").unlink()
    page = built(folder)
    assert "Token ids are shown, because no tokenizer could be loaded" in page
    assert ">11</span>" in page


def test_an_unfinished_run_shows_how_far_it_came(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "summary.json").unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(lines[:5]) + "\n")
    assert "<dd>5 of 12</dd>" in built(folder)


def hostile_run(folder: Path) -> Path:
    """Hostile texts in every place a run can put a text."""
    write_run(folder)
    evil = " ".join(HOSTILE)
    row = record_row(1, 0, [6, 7, 8, 9, 10, 11], prompt=evil, gold=evil, status=evil, rewards={evil: 1.0, "b": 0.0})
    write_record([row], folder / "rollouts", 1)
    config = (folder / "config.yaml").read_text().replace("a run of tests", json.dumps(HOSTILE[0] + HOSTILE[1]))
    (folder / "config.yaml").write_text(config + f"data:\n  name: {json.dumps(HOSTILE[1])}\n")
    summary = json.loads((folder / "summary.json").read_text()) | {"algorithm": evil, "seed": evil}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_texts_of_a_model_are_text(tmp_path: Path) -> None:
    page = built(hostile_run(tmp_path / "run"))
    elements = Elements(page)
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("script") == 1
    assert not {"img", "iframe", "object", "embed", "form", "base"} & set(tags)
    attributes = [(name, value or "") for _, found in elements.tags for name, value in found.items()]
    assert [name for name, _ in attributes if name.startswith("on")] == []
    links = [value for name, value in attributes if name in {"src", "href", "xlink:href"}]
    assert [value for value in links if not value.startswith(("#", "data:,"))] == []
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u200b\ufeff]", page)
    text = "".join(elements.texts)
    for hostile in (*HOSTILE[:3], *HOSTILE[4:]):
        assert text.count(hostile) >= 3, hostile
    assert "\u2039U+0000\u203a\u2039U+001B\u203a[31m\u2039U+007F\u203a\u2039U+000D\u203a\u2039U+202E\u203a" in text


def test_the_policy_forbids_the_network_and_allows_this_script_only(tmp_path: Path) -> None:
    page = built(write_run(tmp_path / "run"))
    policy = next(found["content"] for tag, found in Elements(page).tags if tag == "meta" and "http-equiv" in found)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in re.sub(r"url\(#", "", page)
    assert "@import" not in page


def test_a_long_run_with_long_completions_stays_small_and_quick(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=100, rows=64, tokens=1500, recorded=10)
    started = time.perf_counter()
    page = built(folder)
    assert time.perf_counter() - started < 30
    assert len(page.encode()) < 2_000_000
    assert f"{1500 - MOST_TOKENS} more tokens are not shown." in page


def test_right_and_wrong_answers_to_one_prompt_come_first() -> None:
    alone = [record_row(1, row, [1], group=0, correct=True, completion=f"c{row}") for row in range(4)]
    pair = [record_row(1, row, [1], group=2, completion=f"c{row}") for row in (8, 9)]
    repeated = [
        record_row(1, row, [1], group=2, correct=True, completion="c8", prompt=pair[0]["prompt"]) for row in (10,)
    ]
    chosen = [row["row"] for row in choose([*alone, *pair, *repeated], count=4)]
    assert chosen == [8, 9, 0, 1]
    assert [row["row"] for row in choose([*alone, *pair, *repeated], count=9)] == [8, 9, 0, 1, 2, 3]


def test_first_middle_and_last_records() -> None:
    paths = [Path(str(index)) for index in range(5)]
    assert [[path.name for path in first_middle_last(paths[:count])] for count in (0, 1, 2, 5)] == [
        [], ["0"], ["0", "1"], ["0", "2", "4"],
    ]  # fmt: skip


def test_long_texts_say_what_is_left_out() -> None:
    assert shortened("a" * MOST_CHARACTERS) == "a" * MOST_CHARACTERS
    assert shortened("a" * (MOST_CHARACTERS + 3)).endswith("\u2026 (3 more characters)")


def test_a_running_mean_is_shorter_at_the_ends() -> None:
    assert running_mean([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, pytest.approx(11 / 3), 4.5]


def test_importing_and_building_load_no_torch(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from rlvr.report.page import build_report; "
        "light = {'torch', 'transformers', 'trl', 'matplotlib', 'jinja2', 'rlvr.trainer'} & sys.modules.keys(); "
        f"build_report(Path({str(folder)!r})); "
        "print(sorted(light), sorted({'torch', 'transformers', 'trl'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[] []"


def test_the_steps_of_a_rollout_batch_are_one_point_of_the_seconds(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    shared = [row | {"rollout_step": (row["step"] + 1) // 2} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shared))
    page = built(folder)
    assert "6.0 s together. The steps of a rollout batch are added up." in page
