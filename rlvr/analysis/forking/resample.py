"""Outcomes of cells: continuations by the project's own sampler, graded by its grader."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rlvr.analysis.forking.cells import Cell
from rlvr.analysis.forking.ledger import Outcomes
from rlvr.analysis.forking.settings import Question
from rlvr.evaluation.grading import LIMITS
from rlvr.evaluation.requests import Key, sample_seed
from rlvr.rewards.extract import extract
from rlvr.rewards.grade import grade_many
from rlvr.sampling.batched import BatchedSampler, Row
from rlvr.sampling.settings import Sampling

BATCHES_AT_ONCE = 4
"""Batches of rows that are drawn between two writes to the disk, about: what a kill can cost."""

PROBE_TOKENS = 16


@dataclass(frozen=True)
class Drawer:
    """Draws from one model after one prompt.

    Attributes:
        sampler: of the model.
        prompt_ids: of the prompt.
        question: with the gold and the rules of grading.
        seed: of all draws.
        temperature: of the continuations.
    """

    sampler: BatchedSampler
    prompt_ids: list[int]
    question: Question
    seed: int
    temperature: float

    def draw(self, cells: Sequence[Cell]) -> Iterator[list[Outcomes]]:
        """Outcomes of cells, a list as soon as its cells are whole; each depends on its own cell and the seed alone.

        Args:
            cells: each once.
        """
        rows_at_once = BATCHES_AT_ONCE * self.sampler.batch_size
        chunk: list[Cell] = []
        for cell in cells:
            chunk.append(cell)
            if sum(one.samples for one in chunk) >= rows_at_once:
                yield self._outcomes(chunk)
                chunk = []
        if chunk:
            yield self._outcomes(chunk)

    def speed(self, cells: Sequence[Cell], clock: Callable[[], float] = time.perf_counter) -> float:
        """Tokens a second of a full batch, measured on a few tokens of one; what it draws is not kept.

        Args:
            cells: to be drawn, one at least with continuations.
            clock: seconds.
        """
        rows = [row for cell in _spread(cells, self.sampler.batch_size) for row in self._rows([cell])][
            : self.sampler.batch_size
        ]
        sampling = Sampling(temperature=self.temperature)
        for tokens in (1, PROBE_TOKENS):  # the first time pays for what is set up once
            probe = [Row(row.index, row.prompt, row.seed, min(row.limit, tokens)) for row in rows]
            started = clock()
            for _ in self.sampler.run(probe, sampling):
                pass
            seconds = clock() - started
        return sum(len(row.drawn) for row in probe) / max(seconds, 1e-9)

    def _rows(self, cells: Sequence[Cell]) -> list[Row]:
        """A row per continuation; its index is that of its cell."""
        return [
            Row(index, [*self.prompt_ids, *cell.prefix], self._seed(cell, sample), cell.limit)
            for index, cell in enumerate(cells)
            for sample in range(cell.continuations)
        ]

    def _seed(self, cell: Cell, sample: int) -> int:
        return sample_seed(self.seed, Key("forks", f"{cell.key.position} {cell.key.token}", sample))

    def _outcomes(self, cells: Sequence[Cell]) -> list[Outcomes]:
        rows = self._rows(cells)
        for _ in self.sampler.run(rows, Sampling(temperature=self.temperature)):
            pass
        drawn: list[list[list[int]]] = [[] for _ in cells]
        cut: list[list[bool]] = [[] for _ in cells]
        for row in rows:
            drawn[row.index].append(row.drawn)
            cut[row.index].append(self.sampler.reason(row) == "length")
        for index, cell in enumerate(cells):
            if not cell.continuations:
                drawn[index], cut[index] = [[]], [cell.prefix[-1] not in self.sampler.ends]
        texts = [
            self.sampler.tokenizer.decode([*cell.prefix, *tokens], skip_special_tokens=True)
            for cell, many in zip(cells, drawn, strict=True) for tokens in many
        ]  # fmt: skip
        verdicts = iter(self._graded(texts, [one for many in cut for one in many]))
        found = []
        for cell, tokens, ended in zip(cells, drawn, cut, strict=True):
            answers = [next(verdicts) for _ in tokens]
            found.append(
                Outcomes(
                    cell.key.position, cell.key.token, [text for text, _ in answers], [right for _, right in answers],
                    ended, [len(one) for one in tokens],
                )
            )  # fmt: skip
        return found

    def _graded(self, texts: Sequence[str], cut: Sequence[bool]) -> list[tuple[str | None, bool]]:
        """(answer, whether it is right) of each whole completion; without a gold none is right."""
        policy, gold = self.question.grading, self.question.gold
        if gold is None:
            return [(extract(text, policy).text, False) for text in texts]
        verdicts = grade_many(texts, [gold] * len(texts), cut, policy=policy, limits=LIMITS)
        return [(verdict.extracted, verdict.correct) for verdict in verdicts]


def _spread(cells: Sequence[Cell], rows: int) -> list[Cell]:
    """Cells with something to draw, evenly spaced, that give so many rows and few more."""
    drawn = [cell for cell in cells if cell.continuations]
    wanted = 1 + rows // min(cell.samples for cell in drawn)
    return drawn[:: max(1, len(drawn) // wanted)]
