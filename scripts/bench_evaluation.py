"""Time the back ends of `rlvr evaluate` against a plain `model.generate` loop in dataset order, in one run.

    python -m scripts.bench_evaluation                  transformers and its peers, 3 rounds in turns
    python -m scripts.bench_evaluation --server         `transformers serve` as well (needs the extra `server`)

Two cases. `arithmetic`: the built-in benchmark and the built-in policy. `heavy_tail`: a model whose answers are short,
save for one in twenty, which is ten times as long: its weights make a Markov chain that ends by chance, so every back
end meets the same distribution without being told. Each case starts with a warm-up; peers take turns, so that a change
of the machine's load meets them all. Prints a table and a JSON line per case.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from rlvr.assets import base_policy_path
from rlvr.config.evaluation import EvaluationConfig
from rlvr.data.arithmetic import Arithmetic
from rlvr.evaluation.backends.transformers import TransformersBackend
from rlvr.evaluation.encoding import encode_requests
from rlvr.evaluation.requests import Key, Request, sample_seed
from rlvr.sampling.settings import Sampling

SHORT, LONG = 16, 160
"""Mean tokens of the two kinds of answers of `heavy_tail`."""
LONG_EVERY = 20
PLAIN = "plain generate, batches of {}"
PLAIN_SIZES = (32, 64, 128, 256)
"""The peer gets the batch size at which it is fastest."""

Draw = Callable[[list[Request], Sampling], list[int]]
"""Requests to lengths in tokens."""


def heavy_tail_model() -> Any:
    """A model in the shape of the built-in policy whose next token depends on the last one only.

    After `1` comes `1`, and after `2` comes `2`, but for the end of the text, once in `SHORT` and in `LONG` tokens.
    """
    config = Qwen3Config(**{**AutoModelForCausalLM.from_pretrained(base_policy_path()).config.to_dict(),
                            "tie_word_embeddings": False, "max_position_embeddings": 8192})  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    tokenizer = AutoTokenizer.from_pretrained(base_policy_path())
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(config.vocab_size, config.hidden_size))
        model.lm_head.weight.fill_(-4.0)  # times the norm of an embedding, 11.3: never
        for text, mean in (("1", SHORT), ("2", LONG)):
            token = tokenizer(text)["input_ids"][0]
            model.lm_head.weight[token, token] = 0.0
            model.lm_head.weight[config.eos_token_id, token] = (
                -torch.log(torch.tensor(mean - 1.0)) / config.hidden_size**0.5
            )
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=config.eos_token_id, pad_token_id=0
    )
    return model, tokenizer


def requests_of(prompts: list[str], samples: int) -> list[Request]:
    keys = [
        (Key("bench", str(index), sample), prompt) for index, prompt in enumerate(prompts) for sample in range(samples)
    ]
    return [Request(key, prompt, sample_seed(0, key)) for key, prompt in keys]


def ours(model: Any, tokenizer: Any, batch_size: int) -> Draw:
    def run(requests: list[Request], sampling: Sampling) -> list[int]:
        backend = TransformersBackend(model, tokenizer, batch_size)
        return [sample.token_count for samples in backend.generate(requests, sampling) for sample in samples]

    return run


def plain(model: Any, tokenizer: Any, batch_size: int) -> Draw:
    """What a script does: batches in the order of the data set, each until its longest answer ends."""

    def run(requests: list[Request], sampling: Sampling) -> list[int]:
        lengths = []
        torch.manual_seed(0)
        for start in range(0, len(requests), batch_size):
            prompts = [str(request.prompt) for request in requests[start : start + batch_size]]
            inputs = tokenizer(
                prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False
            )
            with torch.no_grad():
                output = model.generate(
                    **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=sampling.max_tokens,
                    pad_token_id=0,
                )  # fmt: skip
            made = output[:, inputs["input_ids"].shape[1] :]
            lengths += (made != 0).sum(dim=-1).tolist()
            tokenizer.batch_decode(made, skip_special_tokens=True)
        return lengths

    return run


def continuous(model: Any, tokenizer: Any) -> Draw:
    """Continuous batching of transformers."""

    def run(requests: list[Request], sampling: Sampling) -> list[int]:
        config = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=sampling.max_tokens, pad_token_id=0,
            eos_token_id=model.generation_config.eos_token_id,
        )  # fmt: skip
        outputs = model.generate_batch(encode_requests(tokenizer, requests), generation_config=config)
        return [len(output.generated_tokens) for output in outputs.values()]

    return run


@contextmanager
def server(folder: Path) -> Iterator[Draw]:
    """`transformers serve` on this machine, asked by the back end `server`."""
    from rlvr.evaluation.backends.server import ServerBackend

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)

        def run(requests: list[Request], sampling: Sampling) -> list[int]:
            backend = ServerBackend(url, str(folder), check_model=False)
            try:
                return [sample.token_count for samples in backend.generate(requests, sampling) for sample in samples]
            finally:
                backend.close()

        yield run
    finally:
        process.terminate()
        process.wait()


def fastest_plain(model: Any, tokenizer: Any, requests: list[Request], sampling: Sampling) -> int:
    """The batch size at which the plain loop is fastest on a quarter of the requests, at least 256."""
    part, seconds = requests[: max(256, len(requests) // 4)], {}
    for size in PLAIN_SIZES:
        started = time.perf_counter()
        plain(model, tokenizer, size)(part, sampling)
        seconds[size] = time.perf_counter() - started
    return min(seconds, key=lambda size: seconds[size])


def measure(
    case: str, peers: dict[str, tuple[Draw, int]], requests: list[Request], sampling: Sampling, rounds: int
) -> None:
    """Time each peer on its first so many requests, in turns; the table and the JSON line of a case."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    lengths: dict[str, list[int]] = {}
    for draw, _ in peers.values():
        draw(requests[:8], sampling)
    for turn in range(rounds):
        for name, (draw, count) in peers.items():
            print(f"{case}: round {turn + 1} of {rounds}, {name}", file=sys.stderr)
            started = time.perf_counter()
            lengths[name] = draw(requests[:count], sampling)
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(peers))
    base = statistics.median(seconds[first]) / peers[first][1]
    print(f"\n{case}: {len(requests)} requests, {rounds} rounds; tokens of an answer: mean, median, most")
    rows = []
    for name, (_, count) in peers.items():
        middle, size = statistics.median(seconds[name]), lengths[name]
        rows.append({
            "back end": name, "requests": count, "seconds": round(middle, 2),
            "spread": [round(min(seconds[name]), 2), round(max(seconds[name]), 2)],
            "samples_per_second": round(count / middle, 1), "speed_against_plain": round(base / (middle / count), 2),
            "tokens": [round(statistics.mean(size), 1), statistics.median(size), max(size)],
        })  # fmt: skip
        row = rows[-1]
        print(f"  {name:32} {row['samples_per_second']:>8} samples/s  x{row['speed_against_plain']:<6} {middle:7.2f} s "
              f"({row['spread'][0]} to {row['spread'][1]}) for {count}; {row['tokens']}")  # fmt: skip
    print(json.dumps({"case": case, "threads": torch.get_num_threads(), "rows": rows}))


def main() -> None:
    """Run both cases."""
    parser = argparse.ArgumentParser(description="Time the back ends of rlvr evaluate.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cases", nargs="+", choices=["arithmetic", "heavy_tail"], default=["arithmetic", "heavy_tail"]
    )
    parser.add_argument("--server", action="store_true", help="also ask `transformers serve`")
    arguments = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    built_in = AutoModelForCausalLM.from_pretrained(base_policy_path()).eval()
    tokenizer = AutoTokenizer.from_pretrained(base_policy_path())
    tail, _ = heavy_tail_model()
    prompts = [str(problem.prompt) for problem in Arithmetic().heldout()]
    chains = ["2" if index % LONG_EVERY == 0 else "1" for index in range(256)]
    cases = {
        "arithmetic": (built_in, requests_of(prompts, 4), Sampling(max_tokens=48), 128),
        "heavy_tail": (tail, requests_of(chains, 1), Sampling(max_tokens=4096), 64),
    }
    for case in arguments.cases:
        model, requests, sampling, few = cases[case]
        size = fastest_plain(model, tokenizer, requests, sampling)
        peers: dict[str, tuple[Draw, int]] = {
            PLAIN.format(size): (plain(model, tokenizer, size), len(requests)),
            "transformers (default)": (ours(model, tokenizer, EvaluationConfig().batch_size), len(requests)),
            "continuous batching": (continuous(model, tokenizer), few),
        }
        with tempfile.TemporaryDirectory() as folder:
            if not arguments.server:
                measure(case, peers, requests, sampling, arguments.rounds)
                continue
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            with server(Path(folder)) as served:
                peers["server (transformers serve)"] = (served, few)
                measure(case, peers, requests, sampling, arguments.rounds)


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    main()
