"""Sampling with vLLM, with a stand-in for the package that records its calls."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rlvr.errors import UserError
from rlvr.evaluation.backends.vllm import VLLMBackend
from rlvr.evaluation.requests import Sample
from rlvr.sampling.settings import Sampling
from tests.evaluation.serving import wanted

SAMPLING = Sampling(temperature=0.6, top_p=0.95, top_k=0, max_tokens=9)


class StandIn(ModuleType):
    """Has what the back end uses of vLLM. An answer has as many tokens as its prompt has characters, at most 9.

    Attributes:
        loaded: the settings of every model.
        calls: method, prompts and sampling parameters of every call.
    """

    def __init__(self) -> None:
        super().__init__("vllm")
        self.loaded: list[dict[str, Any]] = []
        self.calls: list[tuple[str, list, list]] = []
        self.reason: str | None = None
        self.error: Exception | None = None
        self.SamplingParams = lambda **settings: settings

    def LLM(self, **settings: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.loaded.append(settings)
        return SimpleNamespace(generate=self._method("generate"), chat=self._method("chat"))

    def _method(self, name: str) -> Any:
        def call(prompts: list, *, sampling_params: list, use_tqdm: bool) -> list:
            assert not use_tqdm
            if self.error is not None:
                raise self.error
            self.calls.append((name, prompts, sampling_params))
            return [SimpleNamespace(outputs=[self._answer(prompt)]) for prompt in prompts]

        return call

    def _answer(self, prompt: Any) -> Any:
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        reason = self.reason or ("length" if len(text) > 9 else "stop")
        return SimpleNamespace(text=f"[{text}]", token_ids=list(range(min(len(text), 9))), finish_reason=reason)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module = StandIn()
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def test_the_model_is_loaded_once_with_the_settings(vllm: StandIn) -> None:
    backend = VLLMBackend(
        "some/model", revision="abc", dtype="float16", seed=3, max_model_len=4096, tensor_parallel_size=2,
        gpu_memory_utilization=0.5,
    )  # fmt: skip
    for _ in range(2):
        list(backend.generate(wanted(["a"]), SAMPLING))
    assert vllm.loaded == [
        {
            "model": "some/model",
            "revision": "abc",
            "tokenizer_revision": "abc",
            "dtype": "float16",
            "seed": 3,
            "max_model_len": 4096,
            "tensor_parallel_size": 2,
            "gpu_memory_utilization": 0.5,
            "trust_remote_code": False,
        }
    ]
    assert backend.engine == "vllm float16"


def test_chunks_of_texts_and_of_chats_each_request_with_its_seed(vllm: StandIn) -> None:
    chat = [{"role": "user", "content": "a long question"}]
    requests = wanted(["a", chat, "bb", "ccc"])
    lists = list(VLLMBackend("m", chunk=2).generate(requests, SAMPLING))
    first, talk, second, third = requests
    assert lists == [
        [Sample(first.key, "[a]", 1, "stop"), Sample(second.key, "[bb]", 2, "stop")],
        [Sample(third.key, "[ccc]", 3, "stop")],
        [Sample(talk.key, "[a long question]", 9, "length")],
    ]
    assert [(name, prompts) for name, prompts, _ in vllm.calls] == [
        ("generate", ["a", "bb"]),
        ("generate", ["ccc"]),
        ("chat", [chat]),
    ]
    common = {"n": 1, "temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_tokens": 9}
    seeds = [[first.seed, second.seed], [third.seed], [talk.seed]]
    assert [parameters for _, _, parameters in vllm.calls] == [[{"seed": s, **common} for s in some] for some in seeds]


def test_a_chunk_is_handed_out_before_the_next_is_drawn(vllm: StandIn) -> None:
    samples = VLLMBackend("m", chunk=1).generate(wanted(["a", "bb"]), SAMPLING)
    next(samples)
    assert len(vllm.calls) == 1
    samples.close()
    assert len(vllm.calls) == 1


def test_an_answer_that_was_given_up_is_not_a_sample(vllm: StandIn) -> None:
    vllm.reason = "abort"
    with pytest.raises(UserError, match=r"answer to test/0/0 with the finish reason 'abort'; expected stop or length"):
        list(VLLMBackend("m").generate(wanted(["a"]), SAMPLING))


def test_what_vllm_refuses_is_said_in_its_words(vllm: StandIn) -> None:
    backend = VLLMBackend("m")
    vllm.error = ValueError("The decoder prompt (length 99)\nis too long")
    with pytest.raises(
        UserError, match=r"refuses a prompt or a setting: The decoder prompt \(length 99\) is too long$"
    ):
        list(backend.generate(wanted(["a"]), SAMPLING))
    with pytest.raises(UserError, match=r"does not take the model m with .*'dtype': 'bfloat16'.*is too long$"):
        VLLMBackend("m")


def test_a_closed_back_end_draws_no_more(vllm: StandIn) -> None:
    backend = VLLMBackend("m")
    backend.close()
    with pytest.raises(ValueError, match="closed"):
        list(backend.generate(wanted(["a"]), SAMPLING))


def test_without_vllm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"make setup EXTRAS=dev,vllm"):
        VLLMBackend("m")


def test_a_chunk_has_at_least_one_request(vllm: StandIn) -> None:
    with pytest.raises(UserError, match="chunk is 0"):
        VLLMBackend("m", chunk=0)
    assert vllm.loaded == []
