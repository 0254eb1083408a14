"""Problems out of rows: what files and hub data sets share."""

import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from rlvr.data.base import Data, Problem
from rlvr.data.columns import Source
from rlvr.data.mapping import Question, map_columns, strip_questions
from rlvr.data.pass_rates import Filter
from rlvr.data.reading import read_files
from rlvr.data.templates import check_template, render_prompt
from rlvr.errors import UserError


class Loaded(NamedTuple):
    """What came out of the rows."""

    train: list[Problem]
    heldout: list[Problem]
    notes: list[str]


@dataclass
class Table(Data):
    """Settings of every source of rows.

    Each prompt is kept once, and a held-out prompt is never trained on. One shuffle from `seed` decides which problems
    are held out, the order of held-out problems, and which `limit` keeps; so the first n held-out problems are a sample
    of them all, and neither size changes the other's choice.

    Attributes:
        prompt_column: where the prompt is, e.g. `problem`, or a path such as `prompt.0.content`; None finds it.
        gold_column: where the gold answer is, e.g. `reward_model.ground_truth`; None finds it.
        strip_prefix: text taken off the start of each prompt, blanks around it too: instructions in the data.
        strip_suffix: text taken off the end.
        template: `none`, `paper_8020`, `qwen_boxed`, `chat`, or a text with `{question}`.
        system: the system prompt of `template=chat`.
        max_prompt_tokens: longer prompts are left out, and counted; None for no limit.
        limit: problems to train on, at most; None for all.
        heldout_files: files, folders or globs with problems to hold out.
        heldout_size: problems held out of the training data where nothing else says what is held out.
        drop_empty: leave out rows without a prompt or a gold answer instead of refusing them.
        unlabelled: read no golds of training problems, for algorithms without rewards; held-out problems keep theirs.
        seed: of the shuffle.
        filter: which training problems are kept for their measured pass rate.
    """

    prompt_column: str | None = None
    gold_column: str | None = None
    strip_prefix: str = ""
    strip_suffix: str = ""
    template: str = "none"
    system: str | None = None
    max_prompt_tokens: int | None = None
    limit: int | None = None
    heldout_files: list[str] = field(default_factory=list)
    heldout_size: int = 0
    drop_empty: bool = False
    unlabelled: bool = False
    seed: int = 0
    filter: Filter = field(default_factory=Filter, repr=False)

    def __post_init__(self) -> None:
        check_template(self.template, self.system)
        for name, least in (("max_prompt_tokens", 1), ("limit", 1), ("heldout_size", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"data.{name} is {value}; expected a whole number of at least {least}")
        if self.unlabelled and self.heldout_size:
            raise UserError(
                f"data.unlabelled=true with data.heldout_size={self.heldout_size}; problems without golds cannot be "
                "graded: set data.heldout_size=0, and name problems with golds in data.heldout_files"
            )
        if isinstance(self.heldout_files, str):
            self.heldout_files = [self.heldout_files]
        if self.heldout_size and self._heldout_setting():
            raise UserError(
                f"data.heldout_size is {self.heldout_size} but {self._heldout_setting()} says what is held out; set "
                "data.heldout_size=0, or the other to null or [] (evaluation.problems limits how many are asked)"
            )

    def _train_source(self) -> Source:
        """The rows to train on."""
        raise TypeError(f"{type(self).__name__} does not say where its rows are; define _train_source()")

    def _heldout_setting(self) -> str | None:
        """The setting that says what is held out; None where nothing does."""
        return "data.heldout_files" if self.heldout_files else None

    def _heldout_source(self) -> Source | None:
        """The rows held out; None to carve them off."""
        return read_files(self.heldout_files, "data.heldout_files") if self.heldout_files else None

    def train(self) -> list[Problem]:
        """The problems to train on, in the order of the source.

        Raises:
            UserError: if the source cannot be read, or its columns give no problems.
        """
        return self._loaded.train

    def heldout(self) -> list[Problem]:
        """The held-out problems, in an order drawn from `seed`; raises as `train()` does."""
        return self._loaded.heldout

    def notes(self) -> list[str]:
        """Columns used, counts, and what was left out."""
        return self._loaded.notes

    def prompt_limit(self) -> int | None:
        """`max_prompt_tokens`."""
        return self.max_prompt_tokens

    def _map(
        self, source: Source, name: str, notes: list[str], from_elsewhere: bool = False, unlabelled: bool = False
    ) -> list[Question]:
        """The questions of a source; from elsewhere, a column that a file does not have is looked for."""
        mapped = map_columns(
            source, self.prompt_column, self.gold_column, drop_empty=self.drop_empty, search=from_elsewhere,
            unlabelled=unlabelled,
        )  # fmt: skip
        notes.append(f"{name}: {mapped.describe()}")
        questions, lacking = strip_questions(mapped.questions, self.strip_prefix, self.strip_suffix)
        for setting, count in lacking.items():
            if count == len(mapped.questions) and not from_elsewhere:
                raise UserError(
                    f"data.{setting} is {getattr(self, setting)[:60]!r}, but no prompt of {source.label} "
                    "has it as a text; set it to what the prompts hold, or to ''"
                )
            if count:
                notes.append(f"{name}: {count} of {len(mapped.questions)} prompts lack data.{setting}")
        if len(questions) < len(mapped.questions):
            same = len(mapped.questions) - len(questions)
            notes.append(f"{name}: {same} prompts repeat another once stripped and were left out")
        return questions

    @cached_property
    def _loaded(self) -> Loaded:
        notes: list[str] = []
        train = self._map(self._train_source(), "training", notes, unlabelled=self.unlabelled)
        source = self._heldout_source()
        if source is None:
            train, heldout = self._carve(train)
        else:
            heldout = self._map(source, "held out", notes, from_elsewhere=bool(self.heldout_files))
            random.Random(self.seed).shuffle(heldout)
            train = self._limited(self._apart(train, heldout, notes))
        problems, filtered = self.filter.keep(self._rendered(train))
        notes += [*filtered, f"training on {len(problems)} problems, {len(heldout)} held out"]
        if not heldout:
            notes.append("nothing is held out, so no accuracy is measured; set data.heldout_size or data.heldout_files")
        return Loaded(problems, self._rendered(heldout), notes)

    def _rendered(self, questions: list[Question]) -> list[Problem]:
        return [Problem(render_prompt(q.prompt, self.template, self.system), q.gold) for q in questions]

    def _order(self, count: int) -> list[int]:
        order = list(range(count))
        random.Random(self.seed).shuffle(order)
        return order

    def _limited(self, questions: list[Question]) -> list[Question]:
        return [questions[index] for index in sorted(self._order(len(questions))[: self.limit])]

    def _carve(self, questions: list[Question]) -> tuple[list[Question], list[Question]]:
        """Training and held-out problems: the held-out ones are the end of the shuffle."""
        if self.heldout_size >= len(questions):
            raise UserError(
                f"data.heldout_size is {self.heldout_size} but there are only {len(questions)} different problems; "
                "expected fewer, so that some are left to train on"
            )
        order = self._order(len(questions))
        rest = len(questions) - self.heldout_size
        chosen = sorted(order[:rest][: self.limit])
        return [questions[index] for index in chosen], [questions[index] for index in order[rest:]]

    def _apart(self, train: list[Question], heldout: list[Question], notes: list[str]) -> list[Question]:
        """Training problems whose prompt is not held out."""
        kept_back = {question.key for question in heldout}
        apart = [question for question in train if question.key not in kept_back]
        if not apart:
            raise UserError(
                f"every one of the {len(train)} training prompts is also held out; expected different data: change "
                f"{self._heldout_setting()}"
            )
        if len(apart) < len(train):
            notes.append(f"training: {len(train) - len(apart)} prompts are also held out and were left out")
        return apart
