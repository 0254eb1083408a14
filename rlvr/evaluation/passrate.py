"""`rlvr passrate`: how often a model solves each training prompt. The samples are kept in a ledger, as evaluation's."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from rlvr.config.compose import compose, split_settings
from rlvr.config.convert import convert
from rlvr.config.evaluation import EvaluationConfig, compose_evaluation
from rlvr.data.base import Data, Problem
from rlvr.data.lengths import filter_long
from rlvr.errors import UserError
from rlvr.evaluation.benchmarks import BenchmarkProblem, Loaded, read_benchmark
from rlvr.evaluation.checkpoints import find_checkpoints
from rlvr.evaluation.evaluate import Evaluation, Task
from rlvr.evaluation.ledger import gold_text
from rlvr.evaluation.workers import start_processes
from rlvr.rollouts.stream import prompt_text

METADATA = b"rlvr.passrate"
"""The key of the file's metadata under which a JSON text says how the rates were measured."""

FOREIGN = ("benchmarks", "benchmarks_dir", "protocol", "template", "chat", "system", "samples", "watch", "poll",
           "report_to", "push_to_hub")  # fmt: skip
"""Settings of `rlvr evaluate` that say nothing here: prompts are asked as in training, `k` times."""


def _identified(problems: Sequence[Problem]) -> list[BenchmarkProblem]:
    """Each prompt once, as in training."""
    unique: dict[str, BenchmarkProblem] = {}
    for problem in problems:
        unique.setdefault(problem.prompt_id, BenchmarkProblem(problem.prompt_id, problem.prompt, problem.gold))
    return list(unique.values())


def training_benchmark(name: str, problems: Sequence[Problem], max_tokens: int | None = None) -> Loaded:
    """Training problems as a benchmark whose questions are whole prompts: nothing is put around them.

    Args:
        name: of the data.
        problems: to train on; of equal prompts the first counts.
        max_tokens: of an answer; None for that of the evaluation.
    """
    unique = _identified(problems)
    lines = "".join(json.dumps(problem, sort_keys=True, ensure_ascii=False) + "\n" for problem in unique)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return Loaded(f"training-{name}", 1, digest, unique, "none", None, max_tokens, f"training problems of data={name}")


class PassRates(Evaluation):
    """An evaluation of one model on the prompts it is trained on.

    Args:
        config: of the evaluation; `samples` is k, and `limit` counts prompts.
        data: whose training problems are asked. Prompts that training leaves out for their length are left out here,
            unless a server hides its tokenizer.
        max_tokens: of an answer; None for `config.max_tokens`.
        console: where people read.

    Raises:
        UserError: for anything that does not fit, or several models.
    """

    def __init__(self, config: EvaluationConfig, data: Data, max_tokens: int | None, console: Console) -> None:
        self.data, self.longest_answer = data, max_tokens
        super().__init__(config, console)
        if len(self.checkpoints) != 1:
            raise UserError(
                f"model={','.join(config.model)} stands for {len(self.checkpoints)} models; expected one, e.g. "
                f"model={self.checkpoints[-1].label}"
            )

    def _benchmarks(self) -> list[Loaded]:
        problems, limit = self.data.train(), self.data.prompt_limit()
        if limit is not None and self.config.backend != "server":
            problems, dropped = filter_long(problems, self._tokenizer(), limit)
            self.say(f"{dropped:,} prompts of more than {limit:,} tokens left out")
        return [training_benchmark(type(self.data).name, problems, self.longest_answer)]  # type: ignore[attr-defined]

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        config, path = self.config, find_checkpoints(self.config.model)[0].path
        try:
            return AutoTokenizer.from_pretrained(
                path, revision=config.revision or "main", trust_remote_code=config.trust_remote_code
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"the tokenizer of model={path} cannot be loaded ({reason}); expected a model") from None


def pass_rate_table(task: Task, k: int, limit: int | None) -> Any:
    """The rates of a cell that is filled and graded.

    Args:
        task: the cell with its problems.
        k: samples that count, the first ones.
        limit: prompts that count, the first ones; None for all.

    Returns:
        A `pyarrow.Table`, a row a prompt: prompt_id, n, correct, truncated (answers cut at the limit), tokens (mean of
        an answer), prompt (a chat as JSON), chat, gold (several forms as JSON).
    """
    import pyarrow as pa

    counts = {name: Counter[str]() for name in ("n", "correct", "truncated", "tokens")}
    columns = ["problem_id", "sample", "correct", "finish_reason", "token_count"]
    rows = task.cell.rows(task.protocol.hash, columns).to_pydict()
    for name, sample, correct, reason, tokens in zip(*(rows[column] for column in columns), strict=True):
        if sample < k:
            counts["n"][name] += 1
            counts["correct"][name] += bool(correct)
            counts["truncated"][name] += reason == "length"
            counts["tokens"][name] += tokens
    problems = task.benchmark.problems[:limit]
    ids = [problem.problem_id for problem in problems]
    whole = {name: pa.array([counts[name][one] for one in ids], pa.int32()) for name in ("n", "correct", "truncated")}
    return pa.table({
        "prompt_id": ids, **whole,
        "tokens": pa.array([counts["tokens"][one] / max(counts["n"][one], 1) for one in ids], pa.float64()),
        "prompt": [prompt_text(problem.question) for problem in problems],
        "chat": [not isinstance(problem.question, str) for problem in problems],
        "gold": [gold_text(problem.gold) for problem in problems],
    })  # fmt: skip


def _write(table: Any, told: dict[str, Any], output: Path) -> None:
    """Write the table with its metadata, whole or not at all."""
    import pyarrow.parquet

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    metadata = {METADATA: json.dumps(told, sort_keys=True, ensure_ascii=False).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), partial, compression="zstd")
    partial.replace(output)


def measure_pass_rates(
    config: EvaluationConfig, data: Data, output: Path, console: Console, max_tokens: int | None = None
) -> Path:
    """Sample `config.samples` answers to every training prompt, grade them, and write the counts.

    What `config.ledger` holds is not drawn again: a call that was killed goes on, and more samples add to those there.

    Args:
        config: model, back end, sampling, ledger; `limit` asks the first prompts only.
        data: whose training problems are asked.
        output: the Parquet file, replaced if it exists; see `pass_rate_table`. Its metadata say how it was measured.
        console: where people read.
        max_tokens: of an answer; None for `config.max_tokens`.

    Returns:
        The file.

    Raises:
        UserError: for anything that does not fit, before a model is loaded.
    """
    evaluation = PassRates(config, data, max_tokens, console)
    try:
        (task,) = evaluation.execute()
        if evaluation.workers.is_main:
            table = pass_rate_table(task, config.samples, config.limit)
            told = {
                "model": task.checkpoint.label, "checkpoint_hash": task.hash, "step": task.checkpoint.step,
                "data": {"name": type(data).name, **asdict(data)},  # type: ignore[attr-defined]
                "k": config.samples, "limit": config.limit, "seed": config.seed,
                "temperature": task.protocol.sampling.temperature,
                "protocol_hash": task.protocol.hash, "protocol": task.protocol.everything(),
            }  # fmt: skip
            _write(table, told, output)
            evaluation.say("\n".join(_words(table, output, task.protocol.sampling.max_tokens)))
        evaluation.workers.wait()
    finally:
        evaluation.workers.close()
    return output


def _words(table: Any, output: Path, max_tokens: int) -> list[str]:
    """What the rates say, in a few lines."""
    n, correct = table["n"].to_pylist(), table["correct"].to_pylist()
    shares = [right / asked for right, asked in zip(correct, n, strict=True)]
    kept = sum(0.2 <= share <= 0.8 for share in shares)
    cut = sum(table["truncated"].to_pylist()) / sum(n)
    return [
        f"{len(n):,} prompts, {sum(n):,} answers, {sum(correct) / sum(n):.1%} right; never solved: "
        f"{shares.count(0):,}, always: {shares.count(1):,}; {cut:.1%} of the answers were cut at {max_tokens:,} tokens",
        f"{output}: data.filter.file={output} data.filter.pass_rate=[0.2,0.8] keeps {kept:,} of {len(n):,} prompts",
    ]


def _settings(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str], list[str]]:
    """The command's own settings, those of the data, and those of the evaluation."""
    own, rest = split_settings(overrides, ("k", "output"))
    keys = [text.lstrip("+~").partition("=")[0] for text in rest]
    for text, key in zip(rest, keys, strict=True):
        if key in FOREIGN:
            hint = "; did you mean k?" if key == "samples" else ": prompts are asked as in training"
            raise UserError(f"{text}: {key} is not a setting of `rlvr passrate`{hint}")
    of_data = [key == "data" or key.startswith("data.") for key in keys]
    asked = [text for text, mine in zip(rest, of_data, strict=True) if not mine]
    return own, [text for text, mine in zip(rest, of_data, strict=True) if mine], asked


def passrate(overrides: Sequence[str], console: Console) -> int:
    """`rlvr passrate`.

    Args:
        overrides: `k` (16), `output` (rates.parquet), `data` and `data.*` as of a run, and those of `rlvr evaluate`
            that are not in `FOREIGN`. The ledger is the output's name with `.ledger`, if none is given.
        console: where people read.

    Returns:
        The exit code.

    Raises:
        UserError: for a setting that does not fit.
    """
    own, of_data, asked = _settings(overrides)
    k, output = convert(own.get("k", 16), int, "k"), Path(convert(own.get("output", "rates.parquet"), str, "output"))
    output = output.expanduser()
    if k < 1:
        raise UserError(f"k is {k}; expected at least 1 answer to each prompt")
    if output.suffix != ".parquet":
        raise UserError(f"output={output} ends in {output.suffix or 'nothing'}; expected a name that ends in .parquet")
    config = compose_evaluation(asked)
    if config.processes > 1:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("processes= inside torchrun or accelerate launch; leave it out: all of them take part")
        return start_processes(config.processes, ["passrate", *overrides, "processes=1"])
    config.samples = k
    given = {text.lstrip("+").partition("=")[0] for text in asked}
    if "ledger" not in given:
        config.ledger = str(output.with_suffix(".ledger"))
    data = compose(of_data).data
    # The built-in task's answers are short, and its policy goes on forever where it does not end one.
    short = data.name == "arithmetic" and "max_tokens" not in given
    measure_pass_rates(config, data, output, console, read_benchmark("arithmetic")[0].max_tokens if short else None)
    return 0
