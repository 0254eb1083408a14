"""The back end for OpenAI-compatible endpoints, against one that is not ours: `transformers serve` on loopback."""

import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr.assets import base_policy_path
from rlvr.data.arithmetic import Arithmetic
from rlvr.errors import UserError
from rlvr.evaluation.backends.server import ServerBackend
from rlvr.evaluation.requests import Request, Sample
from rlvr.sampling.settings import Sampling
from tests.evaluation.serving import Asked, Reply, SmallServer, TransformersServe, forward, transformers_serve, wanted

pytestmark = pytest.mark.slow

TEXTS = [problem.prompt for problem in Arithmetic(train_size=1, heldout_size=48).heldout()]
CHATS = [[{"role": "user", "content": text}] for text in TEXTS]
GREEDY = Sampling(temperature=0.0, max_tokens=48)
DRAWN = Sampling(temperature=1.0, max_tokens=48)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base policy with a chat template that gives the bare text of the messages.

    For a Qwen without a response template of its own the server looks for `<|im_start|>`; prompts end with `=` here.
    """
    folder = tmp_path_factory.mktemp("model") / "policy"
    shutil.copytree(base_policy_path(), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.response_template = {
        "start_anchor": "=",
        "fields": {"content": {"close": tokenizer.eos_token, "content": "text"}},
    }
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersServe]:
    with transformers_serve(tmp_path_factory.mktemp("serve")) as running:
        yield running


@pytest.fixture(scope="module")
def greedy(model: str) -> list[Sample]:
    """What `generate` gives to each prompt alone, without a server."""
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    samples = []
    for request in wanted(TEXTS):
        inputs = tokenizer(request.prompt, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            ids = policy.generate(**inputs, do_sample=False, max_new_tokens=48)[0, inputs["input_ids"].shape[1] :]
        text, reason = tokenizer.decode(ids, skip_special_tokens=True), "length" if len(ids) == 48 else "stop"
        samples.append(Sample(request.key, text, len(ids), reason))
    return samples


def backend(url: str, model: str, **settings: Any) -> ServerBackend:
    return ServerBackend(url, model, **{"patience": 60.0, "timeout": 60.0, **settings})


def draw(asked: ServerBackend, requests: list[Request], sampling: Sampling) -> list[Sample]:
    samples = [sample for some in asked.generate(requests, sampling) for sample in some]
    return sorted(samples, key=lambda sample: int(sample.key.problem_id))


@pytest.mark.parametrize("prompts", [TEXTS, CHATS], ids=["texts", "chats"])
@pytest.mark.parametrize("concurrency", [1, 16])
def test_greedy_answers_are_those_of_generate(
    prompts: list, concurrency: int, server: TransformersServe, model: str, greedy: list[Sample]
) -> None:
    assert draw(backend(server.url, model, concurrency=concurrency), wanted(prompts), GREEDY) == greedy


def test_seeds_hold_one_request_at_a_time(server: TransformersServe, model: str) -> None:
    one = draw(backend(server.url, model, concurrency=1), wanted(TEXTS[:12], seed=1), DRAWN)
    again = draw(backend(server.url, model, concurrency=1), wanted(TEXTS[:12], seed=1)[::-1], DRAWN)
    other = draw(backend(server.url, model, concurrency=1), wanted(TEXTS[:12], seed=2), DRAWN)
    assert one == again
    assert one != other


def test_a_cut_answer_says_so(server: TransformersServe, model: str) -> None:
    samples = draw(backend(server.url, model), wanted(TEXTS[:4]), Sampling(temperature=0.0, max_tokens=3))
    assert [(sample.token_count, sample.finish_reason) for sample in samples] == [(3, "length")] * 4


def test_what_this_server_refuses_ends_at_once(server: TransformersServe, model: str) -> None:
    with pytest.raises(UserError, match=r"completions answers with error 422: Unexpected fields .*top_k"):
        draw(backend(server.url, model), wanted(TEXTS[:4]), Sampling(top_k=5))


def test_a_restart_in_mid_run_loses_nothing(server: TransformersServe, model: str, greedy: list[Sample]) -> None:
    requests, got = wanted(TEXTS), []
    restart = threading.Thread(target=lambda: (time.sleep(1.0), server.start()))
    for some in backend(server.url, model, concurrency=4).generate(requests, GREEDY):
        got += some
        if len(got) >= len(TEXTS) // 4 and restart.ident is None:
            server.kill()
            restart.start()
    restart.join()
    assert sorted(got, key=lambda sample: int(sample.key.problem_id)) == greedy
    assert "Uvicorn running" in (server.folder / "log.txt").read_text().split("Started server process")[-1]


def test_errors_cuts_and_slow_answers_between_us_and_the_server(
    server: TransformersServe, model: str, greedy: list[Sample]
) -> None:
    faults = {
        1: Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "1"}),
        4: Reply(500, "Internal Server Error"),
        8: Reply(body={"choices": "x" * 1000}, cut=True),
        11: Reply(503, {"error": "loading"}),
        20: Reply(body={}, delay=4.0),
    }

    def answer(asked: Asked, count: int) -> Reply:
        return faults.get(count) or forward(asked, server.url)

    with SmallServer(answer, forward(Asked("/v1/models", {}, {}), server.url)) as between:
        samples = draw(backend(between.url, model, concurrency=4, timeout=3.0), wanted(TEXTS), GREEDY)
    assert samples == greedy
    assert len(between.asked) == len(TEXTS) + len(faults)
