"""`rlvr select-prompt`: the prompts whose answers are right now and then, which one-shot entropy minimisation takes."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlvr.data.base import Problem, Prompt
from rlvr.data.files import Files
from rlvr.data.pass_rates import Rate, read_rates
from rlvr.data.templates import PAPER_8020, PLACE, render_prompt
from rlvr.errors import UserError
from rlvr.evaluation.ledger import gold_value
from rlvr.evaluation.passrate import METADATA

SETTING = "select-prompt"
SHOWN = 60
"""Characters of a prompt in the table."""


@dataclass(frozen=True)
class Choice:
    """A prompt with what is known about it.

    Attributes:
        prompt_id: `Problem.prompt_id`.
        rate: how often it was solved.
        problem: prompt and gold; None where the file does not hold them and no data was given.
    """

    prompt_id: str
    rate: Rate
    problem: Problem | None = None

    @property
    def variance(self) -> float:
        """The unbiased variance of correctness over the n samples: n / (n - 1) * p * (1 - p), at most about 1/4.

        From whole numbers with one division, so that 3 and 5 of 8 are an exact tie.
        """
        n, correct = self.rate
        return correct * (n - correct) / (n * (n - 1))


def select_prompts(path: Path, top: int = 1, problems: Sequence[Problem] | None = None) -> list[Choice]:
    """The prompts with the largest variance of correctness: argmax Var, arXiv 2505.20282; ties by `prompt_id`.

    Args:
        path: a file of pass rates, e.g. from `rlvr passrate`.
        top: prompts to choose, at least 1.
        problems: the problems that may be chosen; None for all of the file.

    Returns:
        At most `top` prompts, the most varied first. One that was solved always or never is not chosen.

    Raises:
        UserError: if the file cannot be read, none of the problems was measured, or no prompt varies.
    """
    if top < 1:
        raise UserError(f"--top is {top}; expected at least 1 prompt")
    rates = read_rates(path, SETTING)
    known = _problems_of(path) if problems is None else {problem.prompt_id: problem for problem in problems}
    found = [
        Choice(name, rate, known.get(name))
        for name, rate in rates.items()
        if rate.n > 1 and (problems is None or name in known)
    ]
    if not found:
        where = "" if problems is None else " that is a prompt of the data"
        raise UserError(f"{path} has no prompt with two answers or more{where}; run `rlvr passrate` with k=16, say")
    varied = [choice for choice in found if choice.variance > 0]
    if not varied:
        raise UserError(
            f"each of the {len(found)} prompts of {path} was solved always or never, so no answer varies; run "
            "`rlvr passrate` with a larger k, or on other data"
        )
    return sorted(varied, key=lambda choice: (-choice.variance, choice.prompt_id))[:top]


def _problems_of(path: Path) -> dict[str, Problem]:
    """The prompts and golds that a file of `rlvr passrate` holds; nothing of a file from elsewhere."""
    import pyarrow.parquet

    columns = ["prompt_id", "prompt", "chat", "gold"]
    path = path.expanduser()
    if not set(columns) <= set(pyarrow.parquet.read_schema(path).names):
        return {}
    rows = pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    return {
        row["prompt_id"]: Problem(json.loads(row["prompt"]) if row["chat"] else row["prompt"], gold_value(row["gold"]))
        for row in rows
    }


class Making(NamedTuple):
    """How a question becomes a prompt: `data.template` and `data.system`."""

    template: str = "none"
    system: str | None = None

    def question(self, prompt: Prompt) -> Prompt | None:
        """What has to stand in a file so that this prompt comes out; None where nothing does."""
        text = PAPER_8020 if self.template == "paper_8020" else self.template
        asked = prompt
        if isinstance(prompt, str) and text.count(PLACE) == 1:
            before, after = text.split(PLACE)
            asked = prompt.removeprefix(before).removesuffix(after)
        elif not isinstance(prompt, str) and self.template != "none":
            asked = prompt[-1]["content"]
        fits = not isinstance(asked, str) or (asked and asked == asked.strip())
        return asked if fits and render_prompt(asked, *self) == prompt else None


def making_of(path: Path) -> Making:
    """How the prompts of a file of `rlvr passrate` were made; as they stand where it does not say."""
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(path.expanduser()).metadata or {}
    data = json.loads(metadata.get(METADATA, b"{}")).get("data", {})
    return Making(data.get("template", "none"), data.get("system"))


def write_prompts(choices: Sequence[Choice], output: Path, making: Making | None = None) -> Making:
    """Write prompts as JSON Lines for `data=files`: prompt (without the template), gold, prompt_id.

    Args:
        choices: with their problems.
        output: the file, replaced if it exists; its name ends in .jsonl.
        making: how the prompts were made; None for as they stand.

    Returns:
        What to read the file with: the one given; as they stand where the template does not make one of the prompts.

    Raises:
        UserError: if prompts are not known, or would not come back as they are.
    """
    problems: list[Problem] = []
    for choice in choices:
        if choice.problem is None:
            raise UserError(
                f"the text of prompt {choice.prompt_id} is not known; give the settings of its data, e.g. --data "
                "data=gsm8k, or take the file that `rlvr passrate` writes"
            )
        problems.append(choice.problem)
    if output.suffix != ".jsonl":
        raise UserError(f"--output {output} ends in {output.suffix or 'nothing'}; expected a name that ends in .jsonl")
    making = making or Making()
    if any(making.question(problem.prompt) is None for problem in problems):
        making = Making()
    lines = []
    for problem in problems:
        question = making.question(problem.prompt)
        if question is None:
            raise UserError(
                f"prompt {problem.prompt_id} has blanks around it, which data=files takes off; filter its data with "
                "data.filter instead"
            )
        lines.append({"prompt": question, "gold": problem.gold, "prompt_id": problem.prompt_id})
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{os.getpid()}.{output.name}")
    partial.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    try:
        _check(partial, problems, making)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return making


def _check(path: Path, problems: list[Problem], making: Making) -> None:
    """Refuse what a run would read otherwise, such as a gold that looks like something else."""
    read = Files(train_files=[str(path)], template=making.template, system=making.system).train()
    for before, after in zip(problems, read, strict=True):
        if before != after:
            raise UserError(
                f"gold {before.gold!r} of prompt {before.prompt_id} would be read from a file as {after.gold!r}; "
                "filter its data with data.filter instead"
            )


def select_prompt(
    rates: Path, top: int, output: Path | None, overrides: Sequence[str], console: Console
) -> list[Choice]:
    """`rlvr select-prompt`: show the prompts, and write them if a name is given.

    Args:
        rates: the file of `rlvr passrate`.
        top: prompts to choose.
        output: a .jsonl file for `data=files`; None for none.
        overrides: `data` and `data.*`, to choose among these problems; empty for all of the file.
        console: where people read.

    Returns:
        What was chosen.

    Raises:
        UserError: for anything that does not fit.
    """
    data: Any = None
    if overrides:
        from rlvr.config.compose import compose

        data = compose(overrides).data
    choices = select_prompts(rates, top, None if data is None else data.train())
    table = Table("prompt_id", "right", "rate", "variance", "prompt")
    for choice in choices:
        prompt = "" if choice.problem is None else choice.problem.prompt
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
        rate = choice.rate
        numbers = (f"{rate.correct}/{rate.n}", f"{rate.share:.3f}", f"{choice.variance:.4f}")
        table.add_row(choice.prompt_id, *numbers, Text(" ".join(shown.split())))
    console.print(table)
    if output is not None:
        made = (
            making_of(rates)
            if data is None
            else Making(getattr(data, "template", "none"), getattr(data, "system", None))
        )
        used = write_prompts(choices, output, made)
        also = "" if used.template == "none" else f" data.template={used.template}"
        if PLACE in also or used.system is not None:
            also = " with the data.template and data.system that it was measured with"
        console.print(f"{output}: data=files data.train_files={output}{also}", highlight=False, soft_wrap=True)
    return choices
