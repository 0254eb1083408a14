"""From a checkpoint to a back end that draws from it."""

import os
from typing import Any

from rlvr.config.evaluation import EvaluationConfig
from rlvr.errors import UserError
from rlvr.evaluation.backends.base import Backend
from rlvr.evaluation.checkpoints import Checkpoint


def _base(path: str) -> str:
    """The model whose configuration says the number format: that under an adapter, for an adapter."""
    import json
    from pathlib import Path

    adapter = Path(path) / "adapter_config.json"
    if adapter.is_file() and not (Path(path) / "config.json").is_file():
        return str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
    return path


def number_format(config: EvaluationConfig, checkpoint: Checkpoint) -> str:
    """`float32`, `bfloat16` or `float16`: the one asked for, or the checkpoint's own.

    Raises:
        UserError: if the checkpoint cannot be read.
    """
    from transformers import AutoConfig

    if config.dtype != "auto":
        return config.dtype
    try:
        found = AutoConfig.from_pretrained(
            _base(checkpoint.path), revision=config.revision or "main", trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model={checkpoint.label} cannot be read ({reason}); expected a model of transformers"
        ) from None
    return str(found.dtype or "float32").removeprefix("torch.")


def engine_of(config: EvaluationConfig, checkpoint: Checkpoint) -> str:
    """The `engine` that the back end will have, without loading a weight."""
    if config.backend == "server":
        return "server"
    return f"{config.backend} {number_format(config, checkpoint)}"


def open_backend(config: EvaluationConfig, checkpoint: Checkpoint) -> Backend:
    """The back end of a checkpoint, ready to draw.

    Raises:
        UserError: if it cannot be loaded or reached.
    """
    if config.backend == "server":
        from rlvr.evaluation.backends.server import ServerBackend

        name = config.server.model or checkpoint.path
        return ServerBackend(
            config.server.url, name, concurrency=config.server.concurrency, timeout=config.server.timeout,
            patience=config.server.patience, check_model=not os.path.isdir(name),
        )  # fmt: skip
    if config.backend == "vllm":
        from rlvr.evaluation.backends.vllm import VLLMBackend

        return VLLMBackend(
            checkpoint.path, revision=config.revision, dtype=number_format(config, checkpoint), seed=config.seed,
            max_model_len=config.vllm.max_model_len, tensor_parallel_size=config.vllm.tensor_parallel_size,
            gpu_memory_utilization=config.vllm.gpu_memory_utilization, trust_remote_code=config.trust_remote_code,
        )  # fmt: skip
    return _transformers(config, checkpoint)


def _transformers(config: EvaluationConfig, checkpoint: Checkpoint) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from rlvr.evaluation.backends.transformers import TransformersBackend

    loaded: Any
    transformers_logging.disable_progress_bar()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else "cpu"
    source = {"revision": config.revision or "main", "trust_remote_code": config.trust_remote_code}
    attention = {} if config.attn_implementation is None else {"attn_implementation": config.attn_implementation}
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, padding_side="left", **source)
        loaded = AutoModelForCausalLM.from_pretrained(
            checkpoint.path, dtype=getattr(torch, number_format(config, checkpoint)), output_loading_info=True,
            **attention, **source,
        )  # fmt: skip
        model, found = loaded
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model={checkpoint.label} cannot be loaded ({reason}); expected a causal language model"
        ) from None
    lost = sorted(found["missing_keys"])  # transformers fills them with random numbers
    if lost:
        raise UserError(
            f"model={checkpoint.label} lacks {len(lost)} weights, the first is {lost[0]}; expected a whole checkpoint"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of model={checkpoint.label} has no end-of-text token; set eos_token in it")
    return TransformersBackend(model.to(device).eval(), tokenizer, config.batch_size, config.decoding)
