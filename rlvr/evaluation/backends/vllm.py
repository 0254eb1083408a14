"""Sampling with vLLM in this process."""

import gc
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from rlvr.errors import UserError
from rlvr.evaluation.requests import Request, Sample
from rlvr.sampling.settings import Sampling


class VLLMBackend:
    """Draws samples with `vllm.LLM`, loaded once. Written for vLLM 0.22 to 0.31; only a stand-in has been run so far.

    Every request has its own seed, so a sample does not depend on the order of the requests. vLLM's numbers may still
    depend a little on which requests share a batch, and a near tie may then fall the other way.

    An answer is also cut, with the finish reason `length`, where prompt and answer together reach `max_model_len`.

    Attributes:
        engine: `vllm` and the data type, e.g. `vllm bfloat16`.
    """

    def __init__(
        self,
        path: str,
        *,
        revision: str | None = None,
        dtype: str = "bfloat16",
        seed: int = 0,
        max_model_len: int | None = None,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        trust_remote_code: bool = False,
        chunk: int = 512,
    ) -> None:
        """Loads the model.

        Args:
            path: folder or name of the model.
            revision: of the model and its tokenizer, on the hub; None for a folder or the newest.
            dtype: of weights and activations.
            seed: of vLLM itself; samples have seeds of their own.
            max_model_len: tokens of a prompt with its answer; None for the model's limit.
            tensor_parallel_size: GPUs that one model is spread over.
            gpu_memory_utilization: share of a GPU's memory that vLLM takes.
            trust_remote_code: run code that comes with the model.
            chunk: requests given to vLLM at once. Samples are handed out after each chunk, and a chunk waits for its
                longest answer: a larger one loses less time, and more samples when the process dies.

        Raises:
            UserError: where vLLM is not installed or does not take the model or a setting.
        """
        if chunk < 1:
            raise UserError(f"chunk is {chunk}; expected at least 1 request")
        try:
            self._vllm: Any = importlib.import_module("vllm")
        except ImportError as error:
            raise UserError(
                f"the back end `vllm` cannot load vLLM ({error}); install it: make setup EXTRAS=dev,vllm, or choose "
                "the back end transformers or server"
            ) from error
        self.engine, self._chunk = f"vllm {dtype}", chunk
        settings = {
            "dtype": dtype,
            "seed": seed,
            "max_model_len": max_model_len,
            "tensor_parallel_size": tensor_parallel_size,
            "gpu_memory_utilization": gpu_memory_utilization,
            "trust_remote_code": trust_remote_code,
        }
        try:
            self._llm = self._vllm.LLM(model=path, revision=revision, tokenizer_revision=revision, **settings)
        except (ValueError, OSError) as error:
            raise UserError(f"vLLM does not take the model {path} with {settings}: {_line(error)}") from error

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Sample]]:
        """Draw every sample that is asked for, a list a chunk; see `Backend`.

        Raises:
            UserError: where vLLM refuses a prompt, such as one that is too long, or gives up an answer.
        """
        if self._llm is None:
            raise ValueError("the back end is closed")
        # Texts and chats go through different methods.
        for kind in (str, list):
            alike = [request for request in requests if isinstance(request.prompt, kind)]
            for start in range(0, len(alike), self._chunk):
                yield self._draw(alike[start : start + self._chunk], sampling)

    def close(self) -> None:
        """Gives the model up; its memory is free once nothing else holds it."""
        self._llm = None
        gc.collect()

    def _draw(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        parameters = [
            self._vllm.SamplingParams(
                n=1,
                seed=request.seed,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,  # 0 is off for vLLM too
                max_tokens=sampling.max_tokens,
            )
            for request in requests
        ]
        draw = self._llm.generate if isinstance(requests[0].prompt, str) else self._llm.chat
        try:
            outputs = draw([request.prompt for request in requests], sampling_params=parameters, use_tqdm=False)
        except ValueError as error:
            raise UserError(f"vLLM refuses a prompt or a setting: {_line(error)}") from error
        return [_sample(request, output.outputs[0]) for request, output in zip(requests, outputs, strict=True)]


def _sample(request: Request, answer: Any) -> Sample:
    if answer.finish_reason not in ("stop", "length"):
        raise UserError(
            f"vLLM gave up the answer to {'/'.join(map(str, request.key))} with the finish reason "
            f"{answer.finish_reason!r}; expected stop or length; run the same command again to go on"
        )
    return Sample(request.key, answer.text, len(answer.token_ids), answer.finish_reason)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
