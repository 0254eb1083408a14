"""The configuration of an evaluation: protocols by name, what was changed, what does not fit."""

import pytest

from rlvr.config.compose import configs_dir
from rlvr.config.evaluation import PROTOCOL_FIELDS, EvaluationConfig, changed_fields, compose_evaluation
from rlvr.data.templates import BOXED_INSTRUCTION
from rlvr.decoding.fork_temperature import ForkTemperature
from rlvr.errors import UserError

PUBLISHED = {
    # template, chat, temperature, top_p, max_tokens, samples, extract
    "paper_8020": ("paper_8020", False, 1.0, 1.0, 20480, 16, "boxed"),  # arXiv 2506.01939, section 5
    "dapo": (None, True, 1.0, 0.7, 20480, 32, "answer_line"),  # arXiv 2503.14476, section 4
    "qwen_greedy": ("qwen_boxed", True, 0.0, 1.0, 2048, 1, "boxed"),  # arXiv 2409.12122
    "r1": (None, True, 0.6, 0.95, 32768, 64, "boxed"),  # arXiv 2501.12948
}


def test_every_protocol_is_tested() -> None:
    assert {path.stem for path in (configs_dir() / "protocol").glob("*.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_protocols_have_the_published_numbers(name: str) -> None:
    config = compose_evaluation([f"protocol={name}"])
    template, *rest = PUBLISHED[name]
    fields = ("chat", "temperature", "top_p", "max_tokens", "samples", "extract")
    assert [getattr(config, field) for field in fields] == rest
    assert (config.protocol, config.top_k, config.system, config.think) == (name, 0, None, "after")
    assert template is None or config.template == template
    assert changed_fields(config) == {}


def test_templates_that_are_texts() -> None:
    dapo = compose_evaluation(["protocol=dapo"]).template
    assert dapo.startswith("Solve the following math problem step by step. The last line of your response should be")
    assert "Answer: $Answer (without quotes)" in dapo
    assert dapo.endswith('\n\n{question}\n\nRemember to put your answer on its own line after "Answer:".')
    assert compose_evaluation(["protocol=r1"]).template == "{question}\n" + BOXED_INSTRUCTION


def test_the_default_is_the_papers_protocol_on_the_built_in_task() -> None:
    config = compose_evaluation()
    assert config == compose_evaluation(["protocol=paper_8020"]) == EvaluationConfig()
    assert (config.model, config.benchmarks, config.backend) == (["builtin"], ["arithmetic"], "transformers")


def test_what_was_changed_is_named() -> None:
    config = compose_evaluation(["protocol=r1", "top_p=1.0", "temperature=0.6", "samples=2", "max_tokens=9"])
    assert changed_fields(config) == {"top_p": 1.0, "max_tokens": 9}  # the samples are no part of a protocol
    assert changed_fields(compose_evaluation(["protocol=dapo", "extract=boxed"])) == {"extract": "boxed"}


def test_every_field_of_a_protocol_is_noticed() -> None:
    others = {
        "template": "none", "chat": "true", "system": "S", "temperature": "0.5", "top_p": "0.5", "top_k": "5",
        "max_tokens": "5", "extract": "last_number", "think": "ignore",
    }  # fmt: skip
    assert set(others) == set(PROTOCOL_FIELDS) - {"samples"}
    for name, value in others.items():
        more = ["chat=true"] if name == "system" else []
        assert name in changed_fields(compose_evaluation([f"{name}={value}", *more]))


def test_a_rule_of_decoding_is_built() -> None:
    config = compose_evaluation(["decoding=fork_temperature", "decoding.T_other=0.5"])
    assert config.decoding == ForkTemperature(T_other=0.5)
    assert compose_evaluation().decoding is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["samples=0"], "samples is 0; expected at least 1"),
        (["limit=0"], "limit is 0; expected at least 1"),
        (["batch_size=0"], "batch_size is 0; expected at least 1"),
        (["processes=0"], "processes is 0; expected at least 1"),
        (["samples=few"], "samples"),
        (["temprature=1"], "temprature"),
        (["protocol=r2"], "r2"),
        (["backend=sglang"], "backend is 'sglang'; expected one of transformers, vllm, server"),
        (["dtype=int8"], "dtype is 'int8'; expected one of auto, float32, bfloat16, float16"),
        (["attn_implementation=fast"], "attn_implementation is 'fast'; expected"),
        (["poll=0"], "poll is 0"),
        (["seed=-1"], "seed is -1; expected 0 or more"),
        (["model=[]"], "model and benchmarks need at least one entry"),
        (["benchmarks=[]"], "model and benchmarks need at least one entry"),
        (["backend=server"], "backend=server without server.url; set it, e.g. server.url=http://localhost:8000/v1"),
        (["backend=vllm", "decoding=fork_temperature"], "decoding=fork_temperature changes logits here; expected back"),
        (["decoding=fork_temperature", "decoding.T_fork=0"], "decoding.T_fork is 0"),
        (["decoding=forks"], "forks"),
        (["system=S"], "system is set, but template=paper_8020 with chat=false has no place for it; add chat=true"),
        (["protocol=qwen_greedy", "system=S"], "system is set, but template=qwen_boxed with chat=true has no place"),
        (["server.concurrency=0"], "server.concurrency is 0"),
        (["vllm.gpu_memory_utilization=1.5"], "vllm.gpu_memory_utilization is 1.5; expected a share"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        compose_evaluation(overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("overrides", [["chat=true"], ["template=chat"], ["protocol=r1"], ["protocol=dapo"]])
def test_a_system_prompt_where_there_is_a_chat(overrides: list[str]) -> None:
    assert compose_evaluation([*overrides, "system=Be brief."]).system == "Be brief."
