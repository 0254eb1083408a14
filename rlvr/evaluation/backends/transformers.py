"""The back end in this process: the sampler that training uses, asked for samples of problems."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rlvr.decoding.base import Decoding
from rlvr.errors import UserError
from rlvr.evaluation.encoding import encode_requests
from rlvr.evaluation.requests import Request, Sample
from rlvr.sampling.batched import BatchedSampler, Row
from rlvr.sampling.settings import Sampling


class TransformersBackend(BatchedSampler):
    """Draws from a model in this process; see `BatchedSampler`.

    Args:
        model: a causal language model that can `generate`.
        tokenizer: its tokenizer.
        batch_size: rows generated for at once; memory and speed only. Halved where a GPU has no room.
        decoding: a rule that changes the logits before the temperature.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 256, decoding: Decoding | None = None) -> None:
        super().__init__(model, tokenizer, batch_size, decoding)
        self.engine = f"transformers {str(model.dtype).removeprefix('torch.')}"

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Sample]]:
        """See `Backend`. Answers are cut where the model's positions end, too."""
        for rows in self.run(self._rows(requests, sampling), sampling):
            yield self._samples([requests[row.index] for row in rows], rows)

    def close(self) -> None:
        """Let go of the model."""
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _rows(self, requests: Sequence[Request], sampling: Sampling) -> list[Row]:
        rows = []
        prompts = encode_requests(self.tokenizer, requests)
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            room = self.room(prompt, sampling.max_tokens)
            if room < 1:
                raise UserError(
                    f"the prompt of {request.key.benchmark} {request.key.problem_id} has {len(prompt)} tokens, but the "
                    f"model reads {self.positions} at most; leave the benchmark out or take a model with more positions"
                )
            rows.append(Row(index, prompt, request.seed, room))
        return rows

    def _samples(self, requests: list[Request], rows: list[Row]) -> list[Sample]:
        texts = self.tokenizer.batch_decode([row.drawn for row in rows], skip_special_tokens=True)
        return [
            Sample(request.key, text, len(row.drawn), self.reason(row))
            for request, row, text in zip(requests, rows, texts, strict=True)
        ]
