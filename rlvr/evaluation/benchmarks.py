"""Benchmarks: one YAML each says where the problems are; loaded, each problem has an id and the set has a digest."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from rlvr.config.compose import configs_dir
from rlvr.config.convert import build
from rlvr.data.base import Data, Gold, Problem, Prompt
from rlvr.data.columns import Source, is_empty
from rlvr.data.golds import accepted_forms, gold_style, read_golds
from rlvr.data.hub import load_split
from rlvr.data.mapping import find_gold_column, find_prompt_column
from rlvr.data.reading import read_files
from rlvr.data.templates import NAMES, PLACE
from rlvr.errors import UserError
from rlvr.registry import load_variants
from rlvr.rewards.policy import EXTRACTS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SUFFIXES = (".yaml", ".yml")


@dataclass
class Benchmark:
    """What a benchmark's YAML may say. It names one source: `path` and `file`, or `data`.

    Attributes:
        name: letters, digits and `_.-`; the YAML's own name if left out.
        version: raised when a change of this file changes scores.
        path: the id of the data set on the Hugging Face hub.
        subset: the configuration of the data set; None where it has one only.
        split: the split to ask.
        revision: the commit of the data set; None for the newest.
        file: its file in a local folder; in a YAML of one's own, relative to that YAML.
        prompt_column: where the question is; None finds it.
        gold_column: where the gold answer is; None finds it.
        template: as `data.template`; None for the protocol's.
        extract: where the answer stands, as in `reward.accuracy`; None for the protocol's.
        max_tokens: of an answer; None for the protocol's.
        data: a data variant by its `name`, with its settings; its held-out problems are asked.
    """

    name: str = ""
    version: int = 1
    path: str | None = None
    subset: str | None = None
    split: str = "test"
    revision: str | None = None
    file: str | None = None
    prompt_column: str | None = None
    gold_column: str | None = None
    template: str | None = None
    extract: str | None = None
    max_tokens: int | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(f"the benchmark name {self.name!r} is not made of letters, digits and _.-; rename it")
        if bool(self.data) == bool(self.path or self.file):
            given = "both data and path or file" if self.data else "neither path, file nor data"
            raise UserError(f"benchmark {self.name} has {given}; expected path and file, one of them, or data")
        for name, value in (("version", self.version), ("max_tokens", self.max_tokens)):
            if value is not None and value < 1:
                raise UserError(f"benchmark {self.name}: {name} is {value}; expected a whole number of at least 1")
        if self.template is not None and self.template not in NAMES and PLACE not in self.template:
            known = f"{', '.join(NAMES)}, or a text with {PLACE}"
            raise UserError(f"benchmark {self.name}: template is {self.template!r}; expected {known}")
        if self.extract is not None and self.extract not in EXTRACTS:
            raise UserError(
                f"benchmark {self.name}: extract is {self.extract!r}; expected one of {', '.join(EXTRACTS)}"
            )


class BenchmarkProblem(NamedTuple):
    """One problem.

    Attributes:
        problem_id: 16 hex digits; `Problem.prompt_id` of the question where no other problem has the same question.
        question: text or chat, before any template.
        gold: the right answer, or several accepted forms.
    """

    problem_id: str
    question: Prompt
    gold: Gold


@dataclass(frozen=True)
class Loaded:
    """A benchmark with its problems.

    Attributes:
        name: of the benchmark.
        version: of its YAML.
        digest: sha256, 64 hex digits, over ids, questions and golds in order: the same wherever they were read from.
        problems: in the order of the source; at least one.
        template: None for the protocol's.
        extract: None for the protocol's.
        max_tokens: None for the protocol's.
        source: where the problems were read, for people.
    """

    name: str
    version: int
    digest: str
    problems: list[BenchmarkProblem]
    template: str | None
    extract: str | None
    max_tokens: int | None
    source: str


def benchmark_names() -> list[str]:
    """The benchmarks that come with the package, sorted."""
    return sorted(path.stem for path in (configs_dir() / "benchmark").glob("*.yaml"))


def read_benchmark(name: str) -> tuple[Benchmark, Path]:
    """What the YAML of a benchmark says, and where it is.

    Args:
        name: one of `benchmark_names()`, or the path of a YAML.

    Raises:
        UserError: for an unknown name, or a YAML that does not fit.
    """
    from yaml import YAMLError, safe_load

    is_path = name.endswith(_SUFFIXES)
    path = Path(name).expanduser() if is_path else configs_dir() / "benchmark" / f"{name}.yaml"
    if not is_path and name not in benchmark_names():
        raise _unknown(name)
    try:
        values = safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the benchmark {name} cannot be read ({reason}); expected a YAML file") from None
    values = {} if values is None else values
    named = {"name": path.stem, **values} if isinstance(values, dict) else values
    benchmark = build(Benchmark, named, f"benchmark {path.stem}")
    if is_path and benchmark.path and benchmark.file:
        raise UserError(f"{name} has both path and file; a benchmark of one's own has one source: remove one of them")
    return benchmark, path


def _unknown(name: str) -> UserError:
    known = benchmark_names()
    close = get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return UserError(
        f"benchmark {name} is unknown; {hint}known are {', '.join(known)}, or give the path of a YAML of your own"
    )


def load_benchmark(name: str, benchmarks_dir: Path | None = None) -> Loaded:
    """The problems of a benchmark.

    Args:
        name: one of `benchmark_names()`, or the path of a YAML of one's own.
        benchmarks_dir: a folder with the files of the benchmarks; None for the hub. Own files are where the YAML says.

    Raises:
        UserError: if it is unknown, cannot be read, or has a row without a question or a gold.
    """
    benchmark, path = read_benchmark(name)
    if benchmark.data:
        rows, source = _built_in(benchmark)
    else:
        found = _source(benchmark, path if name.endswith(_SUFFIXES) else None, benchmarks_dir)
        rows, source = _rows(found, benchmark), found.label
    problems = _identified(rows)
    return Loaded(
        benchmark.name, benchmark.version, _digest(problems), problems,
        benchmark.template, benchmark.extract, benchmark.max_tokens, source,
    )  # fmt: skip


def _built_in(benchmark: Benchmark) -> tuple[list[tuple[Prompt, Gold]], str]:
    known = load_variants()["data"]
    variant = benchmark.data.get("name")
    if variant not in known:
        raise UserError(
            f"benchmark {benchmark.name}: data.name is {variant}; expected one of {', '.join(sorted(known))}"
        )
    settings = {key: value for key, value in benchmark.data.items() if key != "name"}
    data: Data = build(known[variant], settings, f"benchmark {benchmark.name}: data")
    rows = [(problem.prompt, problem.gold) for problem in data.heldout()]
    if not rows:
        raise UserError(f"benchmark {benchmark.name}: data={variant} holds no problems out; set data.heldout_size")
    return rows, f"held-out problems of data={variant}"


def _source(benchmark: Benchmark, own: Path | None, benchmarks_dir: Path | None) -> Source:
    """The rows: of one's own file, of the local folder, or of the hub."""
    if own is not None and benchmark.file:
        return read_files([str(own.parent / Path(benchmark.file).expanduser())], f"benchmark {benchmark.name}: file")
    if own is None and benchmarks_dir is not None:
        return _local(benchmark, Path(benchmarks_dir).expanduser())
    at = f" at {benchmark.revision}" if benchmark.revision else ""
    label = f"{benchmark.path}{f' {benchmark.subset}' if benchmark.subset else ''} {benchmark.split}{at}"
    try:
        return load_split(benchmark.path or "", benchmark.subset, benchmark.split, benchmark.revision, label)
    except (LookupError, ConnectionError) as error:
        local = "" if own else f", or benchmarks_dir=FOLDER with {benchmark.file} in it"
        raise UserError(
            f"benchmark {benchmark.name} cannot be read from the Hugging Face hub ({label}: {error}); expected a "
            f"network and access to it{local}"
        ) from None


def _local(benchmark: Benchmark, folder: Path) -> Source:
    if not folder.is_dir():
        raise UserError(f"benchmarks_dir={folder} is not a folder; expected one with {benchmark.file}")
    path = folder / (benchmark.file or "")
    if not path.is_file():
        there = sorted(child.name for child in folder.iterdir() if not child.name.startswith("."))
        more = ", ..." if len(there) > 20 else ""
        raise UserError(
            f"benchmarks_dir={folder} has no {benchmark.file} for the benchmark {benchmark.name}; it has "
            f"{', '.join(there[:20]) + more or 'nothing'}: put the file there, or leave benchmarks_dir out for the hub"
        )
    return read_files([str(path)], "benchmarks_dir")


def _rows(source: Source, benchmark: Benchmark) -> list[tuple[Prompt, Gold]]:
    """Questions and golds. Unlike training data, rows that say the same are kept: a score divides by all of them."""
    name = f"benchmark {benchmark.name}"
    prompt_column = benchmark.prompt_column or find_prompt_column(source)
    gold_column = benchmark.gold_column or find_gold_column(source)
    where = f"{gold_column} of {source.label}"
    cells = [accepted_forms(value, where) for value in source.values(gold_column, f"{name}: gold_column")]
    golds = read_golds(cells, gold_style(cells))
    questions = [
        _question(value, f"{name}: {prompt_column} of {source.label}, {source.place(index)},")
        for index, value in enumerate(source.values(prompt_column, f"{name}: prompt_column"))
    ]
    for what, column, values in (("question", prompt_column, questions), ("gold answer", gold_column, golds)):
        empty = [index for index, value in enumerate(values) if not value]
        if empty:
            raise UserError(
                f"{name}: {len(empty)} of {len(source)} rows of {source.label} have no {what} in `{column}` "
                f"({source.places(empty)}); expected one in each row: mend the file, or set another column"
            )
    return list(zip(questions, golds, strict=True))


def _question(value: Any, where: str) -> Prompt:
    """A text or a chat; an empty text for an empty cell."""
    if isinstance(value, str) or is_empty(value):
        return value.strip() if isinstance(value, str) else ""
    keys = ("role", "content")
    entries = value if isinstance(value, list) else [None]
    chat = [{key: entry[key] for key in keys} for entry in entries if isinstance(entry, dict) and set(keys) <= {*entry}]
    if len(chat) < len(entries) or not all(isinstance(text, str) for message in chat for text in message.values()):
        raise UserError(f"{where} is a {type(value).__name__}; expected a text or a list of {{role, content}} messages")
    return chat


def _identified(rows: list[tuple[Prompt, Gold]]) -> list[BenchmarkProblem]:
    """Rows with their ids; rows with the same question are told apart by the gold, then by their order."""
    ids = [Problem(question, gold).prompt_id for question, gold in rows]
    shared, seen = Counter(ids), Counter[str]()
    problems = []
    for prompt_id, (question, gold) in zip(ids, rows, strict=True):
        if shared[prompt_id] > 1:
            key = json.dumps([prompt_id, gold], ensure_ascii=False)
            seen[key] += 1
            prompt_id = hashlib.sha256(f"{key} {seen[key]}".encode()).hexdigest()[:16]
        problems.append(BenchmarkProblem(prompt_id, question, gold))
    return problems


def _digest(problems: list[BenchmarkProblem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(problem, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
