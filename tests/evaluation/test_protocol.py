"""Protocols: two that differ in what scores depend on have different hashes; others have the same."""

import dataclasses
import json
from typing import Any

import pytest

from rlvr.config.compose import configs_dir
from rlvr.config.evaluation import compose_evaluation
from rlvr.data.templates import BOXED_INSTRUCTION, PAPER_8020
from rlvr.errors import UserError
from rlvr.evaluation import protocol as module
from rlvr.evaluation.benchmarks import BenchmarkProblem, Loaded
from rlvr.evaluation.protocol import Protocol, protocol_of, regraded, short_hash
from rlvr.rewards import version
from rlvr.rewards.policy import Policy

PROBLEMS = [BenchmarkProblem("id", "Why?", "1")]
LOADED = Loaded("b", 1, "digest", PROBLEMS, None, None, None, "here")
ENGINE = "transformers float32"


def made(*overrides: str, benchmark: Loaded = LOADED, engine: str = ENGINE, **changes: Any) -> Protocol:
    return protocol_of(compose_evaluation(overrides), dataclasses.replace(benchmark, **changes), engine)


DRAWING = [
    ["template=none"], ["template='{question}!'"], ["chat=true"], ["chat=true", "system=S"], ["chat=true", "system=T"],
    ["temperature=0.9"], ["temperature=0"], ["top_p=0.9"], ["top_k=20"], ["max_tokens=100"],
    ["decoding=fork_temperature"], ["decoding=fork_temperature", "decoding.T_fork=0.9"],
    ["decoding=fork_temperature", "decoding.T_other=0.9"], ["decoding=fork_temperature", "decoding.threshold=0.9"],
    ["protocol=dapo"], ["protocol=qwen_greedy"], ["protocol=r1"],
]  # fmt: skip
GRADING = [["extract=last_number"], ["extract=answer_line"], ["think=ignore"], ["think=required"]]


def test_each_setting_that_scores_depend_on_has_hashes_of_its_own() -> None:
    changed = [made(), *(made(*overrides) for overrides in DRAWING)]
    changed += [made(engine="transformers bfloat16"), made(engine="vllm float32"), made(engine="server")]
    changed += [made(digest="other"), made(version=2), made(name="c"), made(max_tokens=7), made(template="{question}?")]
    assert len({protocol.draw_hash for protocol in changed}) == len(changed)
    assert len({protocol.hash for protocol in changed}) == len(changed)


def test_rules_of_grading_change_the_scores_hash_and_not_the_samples() -> None:
    changed = [made(), *(made(*overrides) for overrides in GRADING)]
    assert len({protocol.draw_hash for protocol in changed}) == 1
    assert len({protocol.hash for protocol in changed}) == len(changed)
    assert made(extract="last_number").hash == made("extract=last_number").hash


def test_the_graders_version_changes_the_scores_hash_and_not_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, samples = made().hash, made().draw_hash
    monkeypatch.setattr(version, "GRADER_VERSION", version.GRADER_VERSION + 1)
    assert made().hash != scores
    assert made().draw_hash == samples


@pytest.mark.parametrize(
    "overrides",
    [
        ["samples=3"], ["batch_size=3"], ["processes=3"], ["limit=3"], ["seed=3"], ["ledger=x"], ["model=[x/y]"],
        ["watch=true"], ["benchmarks=[a]"], ["temperature=1.0"], ["protocol=paper_8020"], ["poll=3"],
    ],
)  # fmt: skip
def test_what_scores_do_not_depend_on_changes_no_hash(overrides: list[str]) -> None:
    assert made(*overrides).hash == made().hash


def test_the_name_is_for_people() -> None:
    renamed = dataclasses.replace(made(), name="mine")
    assert (renamed.hash, renamed.draw_hash) == (made().hash, made().draw_hash)
    same = made("protocol=dapo", "temperature=0.6", "top_p=0.95", "max_tokens=32768", "extract=boxed",
                "template='{question}\\nPlease'")  # fmt: skip
    assert same.name.startswith("dapo, template=")
    assert "temperature=0.6, top_p=0.95, max_tokens=32768, extract=boxed" in same.name
    # r1 and dapo changed into r1 are one protocol under two names.
    r1 = compose_evaluation(["protocol=r1"])
    other = dataclasses.replace(r1, protocol="dapo")
    assert protocol_of(other, LOADED, ENGINE).hash == made("protocol=r1").hash


@pytest.mark.parametrize(
    ("template", "constant", "text"),
    [("paper_8020", "PAPER_8020", PAPER_8020), ("qwen_boxed", "BOXED_INSTRUCTION", BOXED_INSTRUCTION)],
)
def test_a_named_template_is_hashed_as_its_text(
    template: str, constant: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made(f"template={template}").hash
    assert text in made(f"template={template}").drawing()["template"]
    monkeypatch.setattr(module, constant, text + " ")
    assert made(f"template={template}").hash != before


def test_hashes_stay_the_same_over_releases() -> None:
    """Ledgers are kept: a hash that changes without a reason makes old scores incomparable."""
    assert short_hash({"b": 1, "a": "é"}) == short_hash({"a": "é", "b": 1})
    assert made().draw_hash == "60faa4413571024b"


def test_prompts_of_the_named_protocols() -> None:
    user = {"role": "user", "content": "Why?"}
    assert made().render("Why?") == f"User:\nWhy?\n{BOXED_INSTRUCTION}\n\nAssistant:\n"
    assert made("protocol=qwen_greedy").render("Why?") == [{"role": "system", "content": BOXED_INSTRUCTION}, user]
    assert made("protocol=r1").render("Why?") == [{"role": "user", "content": f"Why?\n{BOXED_INSTRUCTION}"}]
    (asked,) = made("protocol=dapo").render("Why?")
    assert asked["content"].startswith("Solve the following math problem step by step.")  # type: ignore[index]
    assert "\n\nWhy?\n\n" in asked["content"]  # type: ignore[index]
    assert made("template=none").render("Why?") == "Why?"
    assert made("template=none").render([user]) == [user]


@pytest.mark.parametrize(
    "overrides", [["template=none", "chat=true"], ["template=chat"], ["template=chat", "chat=true"]]
)
def test_the_system_prompt_is_in_the_chat(overrides: list[str]) -> None:
    chat = made(*overrides, "system=Be brief.").render("Why?")
    assert chat == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def test_a_benchmarks_own_settings_win() -> None:
    own = made("protocol=r1", template="none", extract="answer_line", max_tokens=48)
    assert (own.template, own.chat, own.system, own.sampling.max_tokens) == ("none", False, None, 48)
    assert own.grading == Policy(extract="answer_line")
    assert own.render("1 + 1 =") == "1 + 1 ="
    assert own.sampling.temperature == 0.6


def test_a_template_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="template is 'papr_8020'; did you mean paper_8020"):
        made("template=papr_8020")


def test_the_protocol_is_json_and_says_everything() -> None:
    everything = json.loads(json.dumps(made("decoding=fork_temperature").everything()))
    assert everything["decoding"] == {"name": "fork_temperature", "T_fork": 1.0, "T_other": 1.0, "threshold": 0.672}
    assert everything["benchmark"] == {"name": "b", "version": 1, "digest": "digest"}
    assert everything["sampling"] == {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 20480}
    assert (everything["engine"], everything["grader"]) == (ENGINE, version.grader_version())
    assert short_hash(everything) == made("decoding=fork_temperature").hash


def test_regrading_gives_the_hash_of_an_evaluation_with_these_rules() -> None:
    before = made("temperature=0.6")
    values = json.loads(json.dumps({"name": before.name, **before.everything()}))
    name, kept = regraded(values, {"extract": "last_number", "think": "after"})
    assert name == made("temperature=0.6", "extract=last_number").hash
    assert kept["name"] == "paper_8020, temperature=0.6, extract=last_number"
    assert {**kept, "name": ""} == {**made("temperature=0.6", "extract=last_number").everything(), "name": ""}
    assert regraded(values, {}) == (before.hash, values)
    assert regraded({**values, "grader": "0"}, {}) == (before.hash, values)


@pytest.mark.parametrize("path", sorted((configs_dir() / "protocol").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_protocol_file_renders_a_question(path: Any) -> None:
    prompt = made(f"protocol={path.stem}").render("What is 1 + 1?")
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    assert text.count("What is 1 + 1?") == 1
    assert "{question}" not in text
