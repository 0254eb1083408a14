"""The transformers back end: rows are those of a plain loop over one row at a time, whatever the batch."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

import rlvr.evaluation.backends.transformers as module
import rlvr.sampling.drawing as drawing
from rlvr.decoding.base import Decoding
from rlvr.decoding.fork_temperature import ForkTemperature
from rlvr.errors import UserError
from rlvr.evaluation.backends.transformers import TransformersBackend
from rlvr.evaluation.encoding import encode_requests
from rlvr.evaluation.requests import Key, Request, Sample
from rlvr.maths.entropy import token_entropy
from rlvr.sampling.drawing import draw, uniforms
from rlvr.sampling.settings import Sampling
from tests.evaluation.tiny import make_model, make_tokenizer, requests_of

TOKENIZER = make_tokenizer()
MODEL = make_model()
PROMPTS = ["a", "What is 1 + 1?", "x" * 90, "Find y. " * 9, "z?", "What is 1 + 1", "", "M" * 30]
SETTINGS = {
    "sampled": Sampling(max_tokens=24),
    "greedy": Sampling(temperature=0.0, max_tokens=24),
    "nucleus": Sampling(temperature=0.8, top_p=0.9, top_k=30, max_tokens=24),
}


def drawn(backend: TransformersBackend, requests: Sequence[Request], sampling: Sampling) -> dict[Key, Sample]:
    samples = [sample for batch in backend.generate(requests, sampling) for sample in batch]
    found = {sample.key: sample for sample in samples}
    assert len(found) == len(samples) == len(requests)
    return found


def one_at_a_time(
    model: Any, requests: Sequence[Request], sampling: Sampling, rule: Decoding | None = None, positions: int = 8192
) -> dict[Key, Sample]:
    """The oracle: one row, one whole forward pass per token, no cache, no padding, no `generate`."""
    found = {}
    for request, prompt in zip(requests, encode_requests(TOKENIZER, requests), strict=True):
        tokens: list[int] = []
        while not (tokens and tokens[-1] in (1, 3)) and len(tokens) < min(sampling.max_tokens, positions - len(prompt)):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + tokens]), use_cache=False).logits[:, -1].float()
            number = uniforms(torch.tensor([request.seed]), torch.tensor([len(tokens)]))
            tokens.append(int(draw(logits if rule is None else rule(logits), number, sampling).tokens))
        reason = "stop" if tokens[-1] in (1, 3) else "length"
        text = TOKENIZER.decode(tokens, skip_special_tokens=True)
        found[request.key] = Sample(request.key, text, len(tokens), reason)
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_rows_are_those_of_the_plain_loop_at_any_batch_size_and_order(name: str) -> None:
    requests, sampling = requests_of(PROMPTS, samples=4), SETTINGS[name]
    expected = one_at_a_time(MODEL, requests, sampling)
    if name != "greedy":  # both kinds of end, and samples that differ
        assert {sample.finish_reason for sample in expected.values()} == {"stop", "length"}
        assert len({sample.completion for sample in expected.values()}) > len(requests) / 2
    for batch_size in (1, 3, 17, 256):
        shuffled = random.Random(batch_size).sample(requests, len(requests))
        assert drawn(TransformersBackend(MODEL, TOKENIZER, batch_size), shuffled, sampling) == expected
    for alone in requests[::5]:  # without neighbours
        assert drawn(TransformersBackend(MODEL, TOKENIZER), [alone], sampling) == {alone.key: expected[alone.key]}


def test_rows_of_a_rule_at_forks_are_those_of_the_plain_loop() -> None:
    requests, sampling = requests_of(PROMPTS, samples=3), SETTINGS["sampled"]
    rule = ForkTemperature(T_fork=0.5, T_other=1.6, threshold=2.5)
    expected = one_at_a_time(MODEL, requests, sampling, rule)
    assert expected != one_at_a_time(MODEL, requests, sampling)
    for batch_size in (3, 256):
        assert drawn(TransformersBackend(MODEL, TOKENIZER, batch_size, rule), requests, sampling) == expected


def test_a_threshold_at_the_entropy_of_a_token_is_decided_alike_in_every_batch() -> None:
    """The entropy of the first token moves across the threshold with the last bits of the logits."""
    requests, sampling = requests_of(PROMPTS, samples=4), Sampling(max_tokens=2)
    for problem in range(1, 8, 2):
        prompt = encode_requests(TOKENIZER, [requests[4 * problem]])[0]
        with torch.no_grad():
            entropy = float(token_entropy(MODEL(torch.tensor([prompt])).logits[:, -1]))
        for offset in (-1e-7, 0.0, 1e-7):
            rule = ForkTemperature(T_fork=0.3, T_other=3.0, threshold=entropy + offset)
            alone = drawn(TransformersBackend(MODEL, TOKENIZER, 1, rule), requests, sampling)
            assert drawn(TransformersBackend(MODEL, TOKENIZER, 32, rule), requests, sampling) == alone


def test_more_samples_and_other_problems_change_no_row() -> None:
    sampling = SETTINGS["sampled"]
    few = drawn(TransformersBackend(MODEL, TOKENIZER), requests_of(PROMPTS[:4], samples=2), sampling)
    many = drawn(TransformersBackend(MODEL, TOKENIZER), requests_of(PROMPTS, samples=5), sampling)
    assert {key: many[key] for key in few} == few
    assert drawn(TransformersBackend(MODEL, TOKENIZER), requests_of(PROMPTS[:4], 2, seed=1), sampling) != few


class Noisy:
    """A model whose logits hang on the batch: an error of 1e-3 that a row has only among others."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.hook = model.lm_head.register_forward_hook(self)

    def __call__(self, module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        rows = len(logits)
        generator = torch.Generator().manual_seed(rows)
        return logits if rows == 1 else logits + 1e-3 * torch.randn(logits.shape, generator=generator)


def test_rows_do_differ_where_errors_are_large_and_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: these tests can fail."""
    requests, sampling, model = requests_of(PROMPTS, samples=16), Sampling(max_tokens=16), make_model()
    expected = drawn(TransformersBackend(model, TOKENIZER, 1), requests, sampling)
    noise = Noisy(model)
    try:
        monkeypatch.setattr(drawing, "TOLERANCE", 0.0)
        assert drawn(TransformersBackend(model, TOKENIZER), requests, sampling) != expected
        # The check mends even such errors where it is told how large they are.
        monkeypatch.setattr(drawing, "TOLERANCE", 5e-3)
        assert drawn(TransformersBackend(model, TOKENIZER), requests, sampling) == expected
    finally:
        noise.hook.remove()


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=16), Sampling(temperature=0.0, max_tokens=16)])
def test_the_checkpoints_generation_config_does_not_leak_in(sampling: Sampling) -> None:
    requests = requests_of(PROMPTS, samples=2)
    bare = drawn(TransformersBackend(make_model(), TOKENIZER), requests, sampling)
    model = make_model()
    own = GenerationConfig(
        eos_token_id=[1, 3], pad_token_id=0, do_sample=True, temperature=0.1, top_k=2, top_p=0.3,
        repetition_penalty=5.0, no_repeat_ngram_size=2, min_new_tokens=15, max_length=20, suppress_tokens=[40, 50],
    )  # fmt: skip
    model.generation_config = own
    assert drawn(TransformersBackend(model, TOKENIZER), requests, sampling) == bare
    assert model.generation_config is own


def test_the_generation_config_is_restored_when_generation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    own = model.generation_config

    def fail(**arguments: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(model, "generate", fail)
    with pytest.raises(RuntimeError, match="broken"):
        drawn(TransformersBackend(model, TOKENIZER), requests_of(["a"]), Sampling(max_tokens=2))
    assert model.generation_config is own


@pytest.mark.parametrize(
    ("ends", "expected"),
    [(1, {1}), ([1, 3], {1, 3}), ([3, 40], {1, 3, 40}), (None, {1})],  # the tokenizer's own is always one
)
def test_end_tokens(ends: Any, expected: set[int]) -> None:
    model = make_model()
    model.generation_config.eos_token_id = ends
    backend = TransformersBackend(model, TOKENIZER)
    assert backend.ends == expected
    samples = drawn(backend, requests_of(PROMPTS, samples=10), Sampling(max_tokens=30)).values()
    for sample in samples:
        assert sample.finish_reason == "stop" or sample.token_count == 30
        assert not any(text in sample.completion for text in ("<end>", "<eos>"))
    # Token 40 is "C" and no special token: where it ends an answer it stands at its end alone, elsewhere anywhere.
    inside = any("C" in sample.completion[:-1] for sample in samples)
    assert inside == (40 not in expected)


def test_token_counts_hold_the_end_token_and_limits_are_exact() -> None:
    """Two tokens, one of which ends: the first draw of `<eos>` is where a row stops."""
    model = make_model()
    bias = torch.full((100,), -1e9)
    bias[1], bias[70] = 0.0, 1.0  # a character in 73 of 100 draws
    hook = model.lm_head.register_forward_hook(lambda module, inputs, logits: bias.expand_as(logits))
    samples = drawn(TransformersBackend(model, TOKENIZER, 7), requests_of(PROMPTS, samples=30), Sampling(max_tokens=5))
    hook.remove()
    for sample in samples.values():
        length = len(sample.completion)
        assert set(sample.completion) <= {TOKENIZER.decode([70])}
        stopped = sample.finish_reason == "stop"
        assert sample.token_count == length + stopped <= 5
        assert stopped or length == 5
    assert {sample.token_count for sample in samples.values()} == {1, 2, 3, 4, 5}
    at_limit = {sample.finish_reason for sample in samples.values() if sample.token_count == 5}
    assert at_limit == {"stop", "length"}


@pytest.mark.parametrize("learned", [False, True])
def test_answers_end_where_the_positions_do(learned: bool) -> None:
    """`learned`: GPT-2 looks its positions up, so that one too many is an error."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=100, n_positions=64, n_embd=16, n_layer=2, n_head=2, eos_token_id=1, bos_token_id=2, pad_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval() if learned else make_model(max_position_embeddings=64)
    model.generation_config.eos_token_id = [1, 3]
    requests, sampling = requests_of(["M" * 60, "x" * 50, "a", "b?", "Find y." * 3], samples=4), Sampling(max_tokens=50)
    expected = one_at_a_time(model, requests, sampling, positions=64)
    assert max(s.token_count for key, s in expected.items() if key.problem_id == "p000") == 3
    assert any(s.token_count == 50 for s in expected.values())
    for batch_size in (1, 5, 256):
        assert drawn(TransformersBackend(model, TOKENIZER, batch_size), requests, sampling) == expected


def test_a_prompt_without_room_for_an_answer_is_refused_before_anything_is_drawn() -> None:
    model = make_model(max_position_embeddings=64)
    backend = TransformersBackend(model, TOKENIZER)
    with pytest.raises(UserError, match="prompt of b p001 has 64 tokens, but the model reads 64 at most; leave"):
        next(backend.generate(requests_of(["a", "x" * 63]), Sampling()))
    drawn(backend, requests_of(["a", "x" * 62]), Sampling())


def test_chats_go_through_the_template_and_special_tokens_stand_once() -> None:
    chat = [{"role": "system", "content": "Box it."}, {"role": "user", "content": "1 + 1?"}]
    key = Key("b", "p", 0)
    encoded = encode_requests(TOKENIZER, [Request(key, chat, 1), Request(key, "1 + 1?", 2), Request(key, chat, 3)])
    assert TOKENIZER.decode(encoded[0]) == "<bos>system: Box it.\n<bos>user: 1 + 1?\nassistant: "
    assert TOKENIZER.decode(encoded[1]) == "<bos>1 + 1?"
    assert encoded[2] == encoded[0]
    assert encoded[1].count(2) == 1  # one per message for a chat, as its template says; one for a text


def test_rows_of_chats_are_those_of_the_plain_loop() -> None:
    chats = [[{"role": "user", "content": text}] for text in PROMPTS[:4]]
    requests = requests_of([*chats, *PROMPTS[:4]], samples=2)
    expected = one_at_a_time(MODEL, requests, SETTINGS["sampled"])
    assert drawn(TransformersBackend(MODEL, TOKENIZER, 5), requests, SETTINGS["sampled"]) == expected


def test_a_chat_without_a_template_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template; expected an instruction-tuned model: choose a protocol"):
        encode_requests(tokenizer, [Request(Key("b", "p", 0), [{"role": "user", "content": "?"}], 0)])


def test_the_end_token_pads_where_there_is_no_padding_token() -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    backend = TransformersBackend(MODEL, tokenizer, 4)
    assert backend.pad == 1
    requests = requests_of(PROMPTS, samples=2)
    assert drawn(backend, requests, SETTINGS["sampled"]) == one_at_a_time(MODEL, requests, SETTINGS["sampled"])


def test_batches_are_handed_out_as_they_are_done() -> None:
    requests = requests_of(PROMPTS, samples=4)
    first = next(TransformersBackend(MODEL, TOKENIZER, 8).generate(requests, SETTINGS["sampled"]))
    assert 0 < len(first) <= 8


def test_a_gpu_without_room_gets_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, sampling = requests_of(PROMPTS, samples=2), SETTINGS["sampled"]
    backend = TransformersBackend(MODEL, TOKENIZER, 16)
    advance, sizes = TransformersBackend._advance, []

    def little(self: TransformersBackend, rows: list[Any], sampling: Sampling) -> None:
        if len(rows) > 5:
            raise torch.cuda.OutOfMemoryError("no room")
        sizes.append(len(rows))
        advance(self, rows, sampling)

    monkeypatch.setattr(TransformersBackend, "_advance", little)
    assert drawn(backend, requests, sampling) == one_at_a_time(MODEL, requests, sampling)
    assert backend.batch_size == max(sizes) == 4

    def none(self: TransformersBackend, rows: list[Any], sampling: Sampling) -> None:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(module.TransformersBackend, "_advance", none)
    with pytest.raises(UserError, match=r"no room on the GPU for .* tokens: lower max_tokens"):
        drawn(backend, requests, sampling)


def test_doubtful_rows_are_decided_alone_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    alone = TransformersBackend.alone

    def counted(self: TransformersBackend, tokens: torch.Tensor) -> torch.Tensor:
        calls.append(len(tokens))
        return alone(self, tokens)

    monkeypatch.setattr(TransformersBackend, "alone", counted)
    requests = requests_of(PROMPTS, samples=30)
    samples = drawn(TransformersBackend(MODEL, TOKENIZER), requests, SETTINGS["sampled"])
    assert 0 < len(calls) < 0.05 * sum(sample.token_count for sample in samples.values())


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size is 0; expected at least 1"):
        TransformersBackend(MODEL, TOKENIZER, 0)
