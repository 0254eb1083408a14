"""What only a GPU can show, in a few minutes: the sparse head, bf16 selection, one optimizer step, the Triton kernels.

    bash scripts/gpu_smoke.sh         on one GPU, in under 8 minutes
    bash scripts/gpu_smoke.sh --tiny  the same code on a tiny model, on the CPU too

Models have random weights in the shape of Qwen3-0.6B, so nothing is downloaded. Prints a Markdown table for
docs/gpu.md. Exit code 0 if every check passed, 1 if one failed, 2 if there is no GPU.
"""

import argparse
import logging
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

KEEP = 0.2
SHARPENING = 0.1
"""Temperature of the selection check: random weights have nearly equal entropies at 1, and none would differ."""

LEAST_AGREEMENT = 0.85
"""Two random masks of a fifth agree on 0.68 of the tokens."""

REPEATS = 3


@dataclass(frozen=True)
class Sizes:
    """Shapes of the checks.

    Attributes:
        model: fields of `Qwen3Config`.
        rows: N, rows of a pass.
        prompt: Tp, tokens.
        completion: T, tokens.
        prompts: P of the optimizer step.
        generations: G of the optimizer step.
        sampled: tokens of a sampled completion, at most.
    """

    model: dict[str, Any]
    rows: int
    prompt: int
    completion: int
    prompts: int = 4
    generations: int = 4
    sampled: int = 64


FULL = Sizes(
    {
        "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    },
    rows=8, prompt=64, completion=448,
)  # fmt: skip
TINY = Sizes(
    {
        "vocab_size": 311, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    },
    rows=4, prompt=6, completion=24, sampled=12,
)  # fmt: skip


@dataclass
class Findings:
    """Rows of the table, and whether every check passed.

    Attributes:
        rows: (what, value, `passed`, `FAILED` or nothing).
    """

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, what: str, value: str) -> None:
        """A number that nothing is expected of."""
        self.rows.append((what, value, ""))

    def check(self, what: str, value: str, fine: bool) -> None:
        """A number that has to fulfil something."""
        self.rows.append((what, value, "passed" if fine else "FAILED"))

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(verdict != "FAILED" for _, _, verdict in self.rows)

    def table(self) -> str:
        """The findings in Markdown."""
        lines = [("what", "value", "check"), ("---", "---", "---"), *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def make_model(sizes: Sizes, device: torch.device) -> Any:
    """A Qwen3 with tied embeddings and random weights in float32."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(tie_word_embeddings=True, eos_token_id=1, pad_token_id=0, **sizes.model)
    return Qwen3ForCausalLM(config).to(device)


def make_tokenizer(vocabulary: int) -> Any:
    """`<pad>` 0, `<eos>` 1, and words `t2`, `t3`, ... split at spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, **{f"t{index}": index for index in range(2, vocabulary)}}
    core = Tokenizer(models.WordLevel(words, unk_token="t2"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def random_tokens(sizes: Sizes, device: torch.device) -> Any:
    """N rows of random tokens without padding."""
    from rlvr.trainer.forward import Tokens

    generator = torch.Generator().manual_seed(1)
    shape = (sizes.rows, sizes.prompt + sizes.completion)
    ids = torch.randint(2, sizes.model["vocab_size"], shape, generator=generator).to(device)
    prompt, completion = ids[:, : sizes.prompt], ids[:, sizes.prompt :]
    return Tokens(prompt, torch.ones_like(prompt), completion, torch.ones_like(completion))


@contextmanager
def counted_head() -> Iterator[list[int]]:
    """The number of positions of each call of TRL's head function."""
    import trl.trainer.utils as trl_utils

    function, counts = trl_utils._ChunkedLogProbFunction, []

    class Counted:
        @staticmethod
        def apply(hidden: Tensor, *rest: Any) -> Any:
            counts.append(hidden.shape[0])
            return function.apply(hidden, *rest)

    trl_utils._ChunkedLogProbFunction = Counted
    try:
        yield counts
    finally:
        trl_utils._ChunkedLogProbFunction = function


def half(device: torch.device, enabled: bool = True) -> Any:
    """bf16 autocast."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def measured(device: torch.device, work: Callable[[], None]) -> tuple[float, float]:
    """(seconds, median of some repeats after a first; peak bytes allocated, 0 on the CPU)."""
    work()
    on_gpu, seconds = device.type == "cuda", []
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), float(torch.cuda.max_memory_allocated()) if on_gpu else 0.0


def check_head(sizes: Sizes, device: torch.device, found: Findings) -> None:
    """The head projects the kept tokens only, gives what the dense one gives, and takes less time and memory."""
    from trl.trainer.utils import add_fused_lm_head

    from rlvr.trainer.forward import compacted_head, token_logps

    model, tokens = make_model(sizes, device), random_tokens(sizes, device)
    add_fused_lm_head(model, temperature=1.0, outputs=("log_probs", "entropy"))
    everything = torch.ones_like(tokens.completion_mask, dtype=torch.bool)
    kept = torch.rand(everything.shape, generator=torch.Generator().manual_seed(2)).to(device) < KEEP
    results: dict[str, Tensor] = {}
    for name, projected in (("sparse", kept), ("dense", everything)):

        def work(name: str = name, projected: Tensor = projected) -> None:
            model.zero_grad(set_to_none=True)
            with half(device), compacted_head(sizes.model["vocab_size"], device.type == "cpu"):
                logps, _ = token_logps(model, tokens, projected)
            (logps * kept).sum().backward()
            results[name] = logps.detach().float() * kept

        with counted_head() as counts:
            seconds, peak = measured(device, work)
        wanted = int(projected.sum())
        where = f"of {everything.numel()} completion tokens"
        found.check(f"head, {name}: positions projected", f"{counts[-1]} {where}", set(counts) == {wanted})
        memory = f", peak {peak / 2**30:.2f} GiB" if peak else ""
        found.note(f"head, {name}: forward and backward", f"{seconds * 1e3:.1f} ms{memory}")
    difference = float((results["sparse"] - results["dense"]).abs().max())
    found.check("head: largest difference of log-probabilities, bf16", f"{difference:.2e} nats", difference < 0.1)


def check_selection(sizes: Sizes, device: torch.device, found: Findings) -> None:
    """Whether bf16 chooses the tokens that fp32 chooses."""
    from trl.trainer.utils import add_fused_lm_head

    from rlvr.selection.select import select_tokens
    from rlvr.trainer.forward import compacted_head, token_logps

    model, tokens = make_model(sizes, device), random_tokens(sizes, device)
    add_fused_lm_head(model, temperature=SHARPENING, outputs=("log_probs", "entropy"))
    mask = torch.ones_like(tokens.completion_mask, dtype=torch.bool)
    entropies, chosen = [], []
    for enabled in (False, True):
        with torch.no_grad(), half(device, enabled), compacted_head(sizes.model["vocab_size"], device.type == "cpu"):
            values = token_logps(model, tokens, mask)[1]
        assert values is not None, "the fused head was asked for entropies"
        entropies.append(values.float())
        chosen.append(select_tokens(values, mask, keep=KEEP).mask)
    agreement = float((chosen[0] == chosen[1]).float().mean())
    both = int((chosen[0] & chosen[1]).sum()) / int(chosen[0].sum())
    spread = float(entropies[0].std())
    largest = float((entropies[0] - entropies[1]).abs().max())
    found.check("selection: tokens on which the masks of bf16 and fp32 agree", f"{agreement:.2%}", agreement >= LEAST_AGREEMENT)  # fmt: skip # noqa: E501
    found.note("selection: kept tokens of fp32 that bf16 keeps", f"{both:.2%}")
    found.note("selection: largest entropy difference", f"{largest:.2e} nats (standard deviation {spread:.2e})")


def odd_sum(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that differs within a group of random completions."""
    return [float(sum(ids) % 2) for ids in completion_ids]


def check_step(sizes: Sizes, device: torch.device, found: Findings) -> None:
    """One optimizer step of `dapo_top20`: sampled, selected, trained."""
    from transformers import PrinterCallback
    from trl import GRPOConfig

    import rlvr

    on_gpu, batches = device.type == "cuda", []
    prompts = [{"prompt": f"t{index} t{index + 1} t{index + 2}"} for index in range(2, 2 + 4 * sizes.prompts)]
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            folder, use_cpu=not on_gpu, bf16=on_gpu, report_to="none", save_strategy="no", max_steps=1,
            num_generations=sizes.generations, per_device_train_batch_size=sizes.generations,
            gradient_accumulation_steps=sizes.prompts, max_completion_length=sizes.sampled, learning_rate=1e-3,
            logging_steps=1, disable_tqdm=True,
        )  # fmt: skip
        trainer = rlvr.RLVRTrainer(
            model=make_model(sizes, torch.device("cpu")), reward_funcs=odd_sum, algorithm="dapo_top20", args=args,
            train_dataset=prompts, processing_class=make_tokenizer(sizes.model["vocab_size"]),
            on_rollout=lambda _, batch, __: batches.append(batch),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        before = trainer.model.get_input_embeddings().weight.detach().clone()
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        moved = float((trainer.model.get_input_embeddings().weight.detach() - before).abs().max())
    [batch], row = batches, trainer.state.log_history[0]
    kept, candidates = int(batch.kept.sum()), int(batch.candidates.sum())
    rows = sizes.prompts * sizes.generations
    found.note("step of dapo_top20", f"{rows} completions of up to {sizes.sampled} tokens in {seconds:.1f} s")
    found.check("step: kept of voting tokens", f"{kept} of {candidates}", 0 < kept == math.ceil(candidates / 5))
    norm, loss = row["grad_norm"], row["loss"]
    finite = math.isfinite(loss) and math.isfinite(norm) and norm > 0
    found.check("step: loss and norm of the gradient", f"{loss:.3e}, {norm:.3e}", finite)
    found.check("step: largest change of a weight", f"{moved:.2e}", 0 < moved < 1)


def fused(device: torch.device, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """[log-probs, entropies, gradient of the hidden states, of the weight] of TRL's head function on a device."""
    from trl.kernels import ChunkedLogProbFunction

    hidden, weight, targets = (value.to(device) for value in inputs)
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    chunk = weight.shape[0] // 3 + 1  # several chunks, the last one narrower
    outputs = ("log_probs", "entropy")
    logps, entropies, *_ = ChunkedLogProbFunction.apply(hidden, weight, None, targets, 0.7, chunk, None, 1.0, outputs)
    (logps.sum() + 0.1 * entropies.sum()).backward()
    return [value.detach().double().cpu() for value in (logps, entropies, hidden.grad, weight.grad)]


def plain(inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """The same by softmax in float64."""
    hidden, weight = (value.double().detach().requires_grad_() for value in inputs[:2])
    logps = torch.log_softmax(hidden @ weight.T / 0.7, dim=-1)
    entropies = -(logps.exp() * logps).sum(dim=-1)
    chosen = logps.gather(1, inputs[2].unsqueeze(1)).squeeze(1)
    (chosen.sum() + 0.1 * entropies.sum()).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return [chosen.detach(), entropies.detach(), hidden.grad, weight.grad]


def check_kernels(sizes: Sizes, device: torch.device, found: Findings) -> None:
    """The kernels of the device give what the CPU gives, and what softmax gives."""
    generator = torch.Generator().manual_seed(3)
    width, vocabulary, positions = 64, 3001, 257
    hidden, weight = (
        torch.randn(positions, width, generator=generator),
        torch.randn(vocabulary, width, generator=generator),
    )
    inputs = hidden, weight * 0.2, torch.randint(0, vocabulary, (positions,), generator=generator)
    here, cpu, softmax = fused(device, inputs), fused(torch.device("cpu"), inputs), plain(inputs)
    for name, *values in zip(("log-probs", "entropies", "gradient, hidden", "gradient, weight"), here, cpu, softmax, strict=True):  # fmt: skip # noqa: E501
        scale = max(1.0, float(values[2].abs().max()))
        from_cpu, from_softmax = (float((values[0] - other).abs().max()) / scale for other in values[1:])
        text = f"{from_cpu:.1e} from the CPU, {from_softmax:.1e} from softmax in float64"
        found.check(f"kernels, {name}: largest difference", text, max(from_cpu, from_softmax) < 1e-4)


def driver() -> str:
    """The version of NVIDIA's driver, or `none`."""
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "none"


def describe(device: torch.device, found: Findings) -> None:
    """What this ran on."""
    found.note("device", torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU")
    found.note("driver", driver())
    found.note("Python", platform.python_version())
    for package in ("torch", "transformers", "trl"):
        found.note(package, version(package))


CHECKS = (check_kernels, check_head, check_selection, check_step)


def run(sizes: Sizes, device: torch.device) -> Findings:
    """Every check; one that raises has failed, and the others still run."""
    found = Findings()
    describe(device, found)
    for check in CHECKS:
        try:
            check(sizes, device, found)
        except Exception as error:
            traceback.print_exc()
            found.check(check.__name__.replace("_", " "), f"{type(error).__name__}: {str(error)[:200]}", False)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the checks and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description="Checks that need a GPU.")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on the CPU where there is no GPU")
    arguments = parser.parse_args(argv)
    on_gpu = torch.cuda.is_available()
    if not (on_gpu or arguments.tiny):
        print("gpu_smoke: needs an NVIDIA GPU that torch can use; --tiny runs on the CPU", file=sys.stderr)
        return 2
    # DeepSpeed announces on import what it found; standard output is for the table.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to" not in record.getMessage())
    found = run(TINY if arguments.tiny else FULL, torch.device("cuda" if on_gpu else "cpu"))
    print(found.table())
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
