"""Samples by `generate` of transformers, in batches of rows of like length that shrink as answers end.

A batch ends when half of its answers have: the others go on in a new batch, with others of their kind. So a few answers
that are ten times longer than the rest do not hold the rest up, at the price of reading the prompt again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from rlvr.decoding.base import Decoding
from rlvr.errors import UserError
from rlvr.maths.entropy import token_entropy
from rlvr.sampling.drawing import draw, uniforms
from rlvr.sampling.settings import Sampling


@dataclass
class Row:
    """A sample that is being drawn.

    Attributes:
        index: whose it is; for the caller.
        prompt: token ids.
        seed: of this sample, 63 bits.
        limit: tokens at most.
        drawn: token ids so far.
        entropies: in nats, one per drawn token; empty unless recorded.
        logps: log-probabilities of the drawn tokens in nats, likewise.
    """

    index: int
    prompt: list[int]
    seed: int
    limit: int
    drawn: list[int] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of the prompt and of what was drawn."""
        return len(self.prompt) + len(self.drawn)

    @property
    def left(self) -> int:
        """Tokens that may still be drawn."""
        return self.limit - len(self.drawn)


class BatchedSampler:
    """Draws from a model in this process.

    A sample depends on its seed and its prompt, not on the batch: see `rlvr/sampling/drawing.py`. Draws that hang on
    the last bits of the logits are decided on a forward pass of the row alone; only in float32, whose errors are small
    enough for such draws to be rare.

    Args:
        model: a causal language model that can `generate`.
        tokenizer: its tokenizer.
        batch_size: rows generated for at once; memory and speed only. Halved where a GPU has no room.
        decoding: a rule that changes the logits before the temperature.
        record: keep the policy's entropy and log-probability of each drawn token: those of the whole vocabulary at the
            sampling temperature, before `decoding`, `top_k` and `top_p`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, batch_size: int = 256, decoding: Decoding | None = None, record: bool = False
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; expected at least 1")
        self.model, self.tokenizer, self.batch_size, self.decoding = model, tokenizer, batch_size, decoding
        self.record = record
        self.positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        ends = model.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *([ends] if isinstance(ends, int) else ends or [])}
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.ends)

    def run(self, rows: Sequence[Row], sampling: Sampling) -> Iterator[list[Row]]:
        """Draw until every row has ended; gives rows as they end."""
        wave = list(rows)
        while wave:
            wave.sort(key=lambda row: (row.length, row.seed))
            unfinished: list[Row] = []
            while wave:
                batch, wave = wave[: self.batch_size], wave[self.batch_size :]
                try:
                    self._advance(batch, sampling)
                except torch.cuda.OutOfMemoryError:
                    if self.batch_size == 1:
                        raise UserError(
                            f"no room on the GPU for {batch[0].length + batch[0].left} tokens: lower max_tokens"
                        ) from None
                    self.batch_size = max(1, len(batch) // 2)
                    wave = [*batch, *wave]
                    torch.cuda.empty_cache()
                    continue
                done = [row for row in batch if self.reason(row)]
                unfinished += [row for row in batch if not self.reason(row)]
                if done:
                    yield done
            wave = unfinished

    def room(self, prompt: Sequence[int], wanted: int) -> int:
        """How many tokens may follow a prompt: as many as wanted, or as many as the model has positions for."""
        return wanted if self.positions is None else min(wanted, self.positions - len(prompt))

    def reason(self, row: Row) -> str:
        """Why a row ended: `stop` or `length`; empty if it did not."""
        if row.drawn and row.drawn[-1] in self.ends:
            return "stop"
        return "length" if row.left <= 0 else ""

    def _advance(self, rows: list[Row], sampling: Sampling) -> None:
        """Generate until half of the rows have ended; what was drawn is appended to each."""
        device, width = self.model.device, max(row.length for row in rows)
        padded = [[self.pad] * (width - row.length) + row.prompt + row.drawn for row in rows]
        mask = [[0] * (width - row.length) + [1] * row.length for row in rows]
        steps = max(row.left for row in rows)
        if self.positions is not None:  # an ended row takes positions too, as long as the batch goes on
            steps = min(steps, self.positions - width)
        chooser = _Chooser(self, rows, sampling, width)
        stopper = _Stopper(self, rows, width)
        # A configuration of its own: the checkpoint's may hold penalties and cuts that the protocol does not name.
        # An adapter's generate() takes that of the model under it.
        bare = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        own, bare.generation_config = bare.generation_config, GenerationConfig()
        try:
            with torch.no_grad():
                output = self.model.generate(
                    input_ids=torch.tensor(padded, device=device), attention_mask=torch.tensor(mask, device=device),
                    do_sample=False, max_new_tokens=steps, pad_token_id=self.pad, eos_token_id=sorted(self.ends),
                    logits_processor=LogitsProcessorList([chooser]), stopping_criteria=StoppingCriteriaList([stopper]),
                    synced_gpus=False,  # under ZeRO-3 the weights are gathered; ranks that are done would be waited for
                )  # fmt: skip
        finally:
            bare.generation_config = own
        counts = [
            _take(row, tokens, self.ends)
            for row, tokens in zip(rows, output[:, width : stopper.length].tolist(), strict=True)
        ]
        if self.record:
            _note(rows, counts, chooser)

    def alone(self, tokens: Tensor) -> Tensor:
        """Next-token logits (V,) of one row (T,) without padding, batch or cache: they depend on nothing else."""
        return self.model(input_ids=tokens[None], use_cache=False, logits_to_keep=1).logits[0, -1].float()


def _take(row: Row, tokens: list[int], ends: set[int]) -> int:
    """Append tokens up to the end of the row; how many."""
    before = len(row.drawn)
    for token in tokens[: row.left]:
        row.drawn.append(token)
        if token in ends:
            break
    return len(row.drawn) - before


def _note(rows: list[Row], counts: list[int], chooser: "_Chooser") -> None:
    """Append what was recorded of the tokens that were taken."""
    entropies = torch.stack(chooser.entropies, dim=1).tolist()
    logps = torch.stack(chooser.logps, dim=1).tolist()
    for index, (row, count) in enumerate(zip(rows, counts, strict=True)):
        row.entropies += entropies[index][:count]
        row.logps += logps[index][:count]


class _Chooser(LogitsProcessor):
    """Draws each row's token and leaves it as the only one possible, so that greedy search takes it."""

    def __init__(self, sampler: BatchedSampler, rows: list[Row], sampling: Sampling, width: int) -> None:
        device = sampler.model.device
        self.sampler, self.sampling, self.width = sampler, sampling, width
        self.seeds = torch.tensor([row.seed for row in rows], device=device)
        self.offsets = torch.tensor([len(row.drawn) for row in rows], device=device)
        self.starts = [width - row.length for row in rows]
        self.limits = torch.tensor([row.left for row in rows], device=device)
        self.ends = torch.tensor(sorted(sampler.ends), device=device)
        self.exact = sampler.model.dtype == torch.float32 and not torch.is_autocast_enabled(device.type)
        self.entropies: list[Tensor] = []
        self.logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.width
        numbers = uniforms(self.seeds, self.offsets + step)
        tokens, doubtful = draw(self._decoded(scores), numbers, self.sampling)
        if self.sampler.decoding is not None:
            doubtful |= self.sampler.decoding.doubtful(scores)
        if self.exact and bool(doubtful.any()):
            live = step < self.limits
            if step:
                live &= ~torch.isin(input_ids[:, self.width :], self.ends).any(dim=-1)
            for index in torch.nonzero(doubtful & live).flatten().tolist():
                logits = self.sampler.alone(input_ids[index, self.starts[index] :])[None]
                tokens[index] = draw(self._decoded(logits), numbers[index : index + 1], self.sampling).tokens[0]
        if self.sampler.record:
            self._record(scores, tokens)
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens[:, None], 0.0)

    def _decoded(self, logits: Tensor) -> Tensor:
        rule = self.sampler.decoding
        return logits if rule is None else rule(logits)

    def _record(self, scores: Tensor, tokens: Tensor) -> None:
        temperature = self.sampling.temperature
        scaled = scores.float() / temperature
        self.entropies.append(token_entropy(scores, temperature))
        self.logps.append(scaled.gather(-1, tokens[:, None]).squeeze(-1) - scaled.logsumexp(dim=-1))


class _Stopper(StoppingCriteria):
    """Ends the batch when half of its rows have ended, each by an end-of-text token or at its limit.

    `length` is the width of the ids at that moment: on a GPU, transformers may go on for a step before it looks.
    """

    def __init__(self, sampler: BatchedSampler, rows: list[Row], width: int) -> None:
        device = sampler.model.device
        self.ends = torch.tensor(sorted(sampler.ends), device=device)
        self.limits = torch.tensor([row.left for row in rows], device=device)
        self.width, self.length = width, width
        self.ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        self.stopped = False

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        if not self.stopped:
            self.length = input_ids.shape[1]
            self.ended |= torch.isin(input_ids[:, -1], self.ends) | (self.length - self.width >= self.limits)
            self.stopped = 2 * int(self.ended.sum()) >= len(self.ended)
        return torch.ones_like(self.ended) if self.stopped else self.ended
