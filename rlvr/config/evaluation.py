"""The configuration of `rlvr evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rlvr.config.compose import merge
from rlvr.config.convert import build_variant, convert_section
from rlvr.config.schema import ATTENTION, at_least
from rlvr.errors import UserError

BACKENDS = ("transformers", "vllm", "server")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass
class ServerSection:
    """An OpenAI-compatible server, with `backend=server`.

    Attributes:
        url: of the API, e.g. `http://localhost:8000/v1`. The key is read from OPENAI_API_KEY.
        model: the name by which the server knows the model; None for the one of `model`.
        concurrency: requests in flight.
        timeout: seconds for one answer.
        patience: seconds without any answer after which a server counts as gone.
    """

    url: str = ""
    model: str | None = None
    concurrency: int = 16
    timeout: float = 600.0
    patience: float = 600.0

    def __post_init__(self) -> None:
        at_least("server", {"concurrency": self.concurrency, "timeout": self.timeout}, 1)
        at_least("server", {"patience": self.patience}, 0)


@dataclass
class VllmSection:
    """vLLM in this process, with `backend=vllm`.

    Attributes:
        tensor_parallel_size: GPUs that share one model.
        gpu_memory_utilization: share of a GPU's memory.
        max_model_len: tokens of prompt and answer; None for the model's own.
    """

    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None

    def __post_init__(self) -> None:
        at_least("vllm", {name: getattr(self, name) for name in ("tensor_parallel_size", "max_model_len")}, 1)
        if not 0 < self.gpu_memory_utilization <= 1:
            raise UserError(
                f"vllm.gpu_memory_utilization is {self.gpu_memory_utilization}; expected a share, above 0 and at most 1"
            )


@dataclass
class EvaluationConfig:
    """Everything about an evaluation.

    Attributes:
        model: checkpoints: folders, globs, run folders (all their complete checkpoints), hub ids, or `builtin`.
        benchmarks: names of `configs/benchmark/`, or YAML files of your own.
        benchmarks_dir: a folder with the benchmarks' files, instead of the hub.
        limit: problems asked per benchmark, at most; the first ones. For trials: scores of a part are marked as such.
        protocol: the named protocol that the next ten fields come from.
        template: as `data.template`: `none`, `paper_8020`, `qwen_boxed`, `chat`, or a text with `{question}`.
        chat: put the prompt into the model's chat template.
        system: system prompt of the chat.
        temperature: of sampling; 0 for greedy.
        top_p: nucleus; 1 for off.
        top_k: 0 for off.
        max_tokens: of an answer.
        samples: n, samples per problem.
        extract: where the answer stands, as `reward.accuracy.extract`.
        think: what of the completion is read, as `reward.accuracy.think`.
        decoding: the chosen variant of `rlvr/decoding/`, or none.
        seed: of the sampling.
        backend: `transformers`, `vllm` or `server`.
        batch_size: rows generated for at once by transformers; memory and speed only.
        processes: started by this command, each with its share of the samples; inside torchrun or accelerate launch
            leave it at 1.
        revision: branch, tag or commit of a hub id; None for its default.
        dtype: `auto` for the checkpoint's own, `float32`, `bfloat16` or `float16`.
        attn_implementation: `sdpa`, `flash_attention_2` or `eager`; None for the model's default.
        trust_remote_code: run code that comes with the model; only for sources you trust.
        ledger: the folder that keeps every sample.
        watch: wait for new checkpoints of the run folders, until their runs end.
        poll: seconds between two looks, when watching.
        report_to: `wandb`, `tensorboard`.
        push_to_hub: a model repository whose card gets the results.
    """

    model: list[str] = field(default_factory=lambda: ["builtin"])
    benchmarks: list[str] = field(default_factory=lambda: ["arithmetic"])
    benchmarks_dir: str | None = None
    limit: int | None = None
    protocol: str = "paper_8020"
    template: str = "paper_8020"
    chat: bool = False
    system: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 20480
    samples: int = 16
    extract: str = "boxed"
    think: str = "after"
    decoding: Any = None
    seed: int = 0
    backend: str = "transformers"
    batch_size: int = 256
    processes: int = 1
    revision: str | None = None
    dtype: str = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    ledger: str = "evaluations"
    watch: bool = False
    poll: float = 10.0
    report_to: list[str] = field(default_factory=list)
    push_to_hub: str | None = None
    server: ServerSection = field(default_factory=ServerSection)
    vllm: VllmSection = field(default_factory=VllmSection)

    def __post_init__(self) -> None:
        sizes = ("samples", "limit", "batch_size", "processes")
        for name in sizes:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; expected at least 1")
        for name, allowed in (("backend", BACKENDS), ("dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        if self.attn_implementation is not None and self.attn_implementation not in ATTENTION:
            raise UserError(f"attn_implementation is {self.attn_implementation!r}; expected {', '.join(ATTENTION)}")
        if not self.poll > 0:
            raise UserError(f"poll is {self.poll}; expected seconds, above 0")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; expected 0 or more")
        if not self.model or not self.benchmarks:
            raise UserError("model and benchmarks need at least one entry, e.g. model=runs/x benchmarks=[math500]")
        if self.system is not None and (self.template == "qwen_boxed" or not (self.chat or self.template == "chat")):
            raise UserError(
                f"system is set, but template={self.template} with chat={str(self.chat).lower()} has no place for it; "
                "add chat=true, or set template=chat"
            )
        if self.backend == "server" and not self.server.url:
            raise UserError("backend=server without server.url; set it, e.g. server.url=http://localhost:8000/v1")
        if self.backend != "transformers" and self.decoding is not None:
            raise UserError(f"decoding={self.decoding.name} changes logits here; expected backend=transformers")


PROTOCOL_FIELDS = (
    "template", "chat", "system", "temperature", "top_p", "top_k", "max_tokens", "samples", "extract", "think",
)  # fmt: skip
"""What a named protocol sets."""


def compose_evaluation(overrides: Sequence[str] = ()) -> EvaluationConfig:
    """The typed configuration of an evaluation.

    Raises:
        UserError: for anything that does not fit.
    """
    values = merge(overrides, "evaluate")
    decoding = values.pop("decoding", None)
    chosen = None if decoding is None else build_variant("decoding", decoding)
    return convert_section(EvaluationConfig, values, decoding=chosen)


@cache
def _named(protocol: str) -> dict[str, Any]:
    return merge([f"protocol={protocol}"], "evaluate")


def changed_fields(config: EvaluationConfig) -> dict[str, Any]:
    """What differs from the named protocol, so that a changed one cannot pass for it."""
    named = _named(config.protocol)
    return {
        name: getattr(config, name)
        for name in PROTOCOL_FIELDS
        if name != "samples" and getattr(config, name) != named[name]
    }


def benchmarks_folder(config: EvaluationConfig) -> Path | None:
    """The folder of local benchmark files."""
    return None if config.benchmarks_dir is None else Path(config.benchmarks_dir).expanduser()
