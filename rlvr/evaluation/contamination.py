"""Which benchmark problems stand in the training prompts: word n-grams in common (arXiv 2005.14165, appendix C).

The n-grams of the benchmarks are indexed and the prompts go past them once, so memory grows with the benchmarks alone.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rlvr.data.base import Problem, Prompt
from rlvr.data.templates import BOXED_INSTRUCTION
from rlvr.errors import UserError
from rlvr.evaluation.benchmarks import BenchmarkProblem

N = 13
"""Words of an n-gram, as in GPT-3."""

CONTAMINATED = 0.5
"""Share of a problem's n-grams in one prompt from which on it counts as contaminated."""

COMMON = 3
"""An n-gram in so many problems of one benchmark is its phrasing, and tells no problem from another."""

BOILERPLATE = (
    BOXED_INSTRUCTION,
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.",
    'Remember to put your answer on its own line after "Answer:".',
    r"Let's think step by step and output the final answer within \boxed{}.",
    'Let\'s think step by step and output the final answer after "####".',
    r"Put your final answer within \boxed{}.",
)
"""Instructions that templates and data sets wrap round a question; cut out of prompts and questions alike."""

_MARKERS = re.compile(r"<\|[^|>]*\|>")
_LABEL = re.compile(
    r"\s*(?:(?:user|human|assistant|question|problem|answer|solution|q|a)\s*:|(?:user|assistant)\s*$)", re.I
)
_NO_WORDS = re.compile(
    r"\\(?:[,;:!> ]|(?:quad|qquad|left|right|displaystyle|limits|text|textrm|textbf|textit|emph|mathrm|mathbf|mathit|"
    r"mathsf|operatorname|mbox|big[lr]?|bigg[lr]?)(?![a-z]))"
)
_SAME = {"dfrac": "frac", "tfrac": "frac", "leq": "le", "geq": "ge", "neq": "ne", "cdot": "*", "times": "*", "div": "/"}
_SIGNS = str.maketrans(
    {"\u2212": "-", "\u00d7": " * ", "\u22c5": " * ", "\u00f7": "/", "\u2264": " le ", "\u2265": " ge "}
)
_COMMAND = re.compile(rf"\\({'|'.join(_SAME)})(?![a-z])")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3}(?!\d))")
_HYPHEN = re.compile(r"(?<=\w)-(?=[^\W\d_]{2})")
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|[-+*/=<>]")


def words_of(line: str) -> list[str]:
    r"""The words of a text, the same however its formulas are set.

    Lower case, Unicode NFKC. A word is a run of letters, a number with its decimals, or one of `+ - * / = < >`.
    Dropped: all other punctuation, LaTeX spacing and fonts, `\left`, `\right`, hyphens inside words, commas between
    thousands. `\dfrac` is `\frac`; `\cdot` and `\times` are `*`.
    """
    text = line if line.isascii() else unicodedata.normalize("NFKC", line).translate(_SIGNS)
    text = text.lower()
    if "\\" in text:
        text = _COMMAND.sub(lambda found: f" {_SAME[found[1]]} ", _THOUSANDS.sub("", text))
        text = _NO_WORDS.sub(" ", text)
    elif "," in text:
        text = _THOUSANDS.sub("", text)
    if "-" in text:
        text = _HYPHEN.sub(" ", text)
    return _WORD.findall(text)


_CUTS = tuple(f" {' '.join(words_of(text))} " for text in BOILERPLATE)


def _lines(text: str) -> list[list[str]]:
    """The words of each line, without labels such as `User:` and without boilerplate."""
    lines = []
    for line in text.splitlines():
        plain = _MARKERS.sub(" ", line) if "<|" in line else line
        label = _LABEL.match(plain)
        words = words_of(plain[label.end() :] if label else plain)
        joined = f" {' '.join(words)} "
        for cut in _CUTS:
            if cut in joined:
                joined = joined.replace(cut, " ")
                words = joined.split()
        if words:
            lines.append(words)
    return lines


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one text; of a chat, all but the system prompt."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt if message["role"] != "system")


def training_prompts(problems: Iterable[Problem]) -> Iterator[tuple[str, str]]:
    """Id and text of each prompt, as `find_overlaps` takes them; the id is `prompt_id`, then the index from 0."""
    for index, problem in enumerate(problems):
        yield f"{problem.prompt_id} (problem {index})", prompt_text(problem.prompt)


@dataclass(frozen=True)
class Overlap:
    """A benchmark problem that shares words with training prompts.

    Attributes:
        problem_id: of the benchmark problem.
        question: its text.
        coverage: the largest share of its n-grams that one prompt has.
        exact: some prompt has the whole question, word for word.
        prompt_id: of the prompt that has most; of equals the first in alphabetical order.
        prompt: its text.
        prompts: how many prompts share an n-gram with it.
    """

    problem_id: str
    question: str
    coverage: float
    exact: bool
    prompt_id: str
    prompt: str
    prompts: int

    @property
    def contaminated(self) -> bool:
        """Whether one prompt has half of the problem or more."""
        return self.coverage >= CONTAMINATED


@dataclass
class _Question:
    """A benchmark problem in the index.

    Attributes:
        problem_id: its id.
        text: its question.
        words: of the question.
        grams: how many n-grams it has, each counted once; 1 for a question with fewer than n words.
        compared_whole: nothing less than all of it counts.
        best: (exact, coverage) so far, and the prompt's id and text.
        prompts: how many prompts share an n-gram.
    """

    problem_id: str
    text: str
    words: tuple[str, ...]
    grams: int = 1
    compared_whole: bool = False
    best: tuple[bool, float, str, str] = (False, 0.0, "", "")
    prompts: int = 0

    def seen_in(self, shared: int, prompt_id: str, prompt: str, words: Sequence[str]) -> None:
        """Take note of a prompt that shares so many n-grams."""
        coverage = shared / self.grams
        whole = coverage == 1.0 and f" {' '.join(self.words)} " in f" {' '.join(words)} "
        if self.compared_whole and not whole:
            return
        self.prompts += 1
        exact, most, first, _ = self.best
        if (whole, coverage) > (exact, most) or ((whole, coverage) == (exact, most) and prompt_id < first):
            self.best = (whole, coverage, prompt_id, prompt)


def _grams(words: Sequence[str], n: int) -> Iterator[int]:
    """A 64-bit hash of each run of n words. A false hit has odds near 1e-6 for 1e8 runs against 1e5 indexed ones."""
    return map(hash, zip(*(words[start:] for start in range(n)), strict=False))


@dataclass
class _Index:
    """The n-grams of benchmark problems.

    Attributes:
        n: words of an n-gram.
        questions: every problem added.
        grams: hash of an n-gram to the problems that have it.
        short: the words of a question with fewer than n of them to its problems.
    """

    n: int
    questions: list[_Question] = field(default_factory=list)
    grams: dict[int, tuple[int, ...]] = field(default_factory=dict)
    short: dict[tuple[str, ...], tuple[int, ...]] = field(default_factory=dict)

    def add(self, problems: Sequence[BenchmarkProblem]) -> list[_Question]:
        """Index the problems of one benchmark."""
        added = []
        for problem in problems:
            text = prompt_text(problem.question)
            added.append(_Question(problem.problem_id, text, tuple(word for line in _lines(text) for word in line)))
        grams = [set(_grams(question.words, self.n)) for question in added]
        problems_with = Counter(gram for own in grams for gram in own)
        for number, (question, own) in enumerate(zip(added, grams, strict=True), start=len(self.questions)):
            telling = {gram for gram in own if problems_with[gram] < COMMON}
            question.compared_whole = not telling
            question.grams = len(telling or own) or 1
            for gram in telling or own:
                self.grams[gram] = (*self.grams.get(gram, ()), number)
            if not own and question.words:
                self.short[question.words] = (*self.short.get(question.words, ()), number)
        self.questions += added
        return added

    def compare(self, prompt_id: str, text: str) -> None:
        """Look for every indexed problem in one prompt."""
        lines = _lines(text)
        words = [word for line in lines for word in line]
        found = set(filter(self.grams.__contains__, _grams(words, self.n)))
        shared = Counter(number for gram in found for number in self.grams[gram])
        if self.short:
            for passage in {tuple(words), *map(tuple, lines)}:
                shared.update(dict.fromkeys(self.short.get(passage, ()), 1))
        for number, count in shared.items():
            self.questions[number].seen_in(count, prompt_id, text, words)


def _result(question: _Question) -> Overlap:
    exact, coverage, prompt_id, prompt = question.best
    return Overlap(question.problem_id, question.text, coverage, exact, prompt_id, prompt, question.prompts)


def find_overlaps_of(
    prompts: Iterable[tuple[str, str]], benchmarks: Mapping[str, Sequence[BenchmarkProblem]], n: int = N
) -> dict[str, list[Overlap]]:
    """`find_overlaps` for several benchmarks; the prompts are read once.

    Raises:
        UserError: if n is less than 1.
    """
    if n < 1:
        raise UserError(f"n is {n}; expected the words of an n-gram, at least 1, e.g. n={N}")
    index = _Index(n)
    added = {name: index.add(problems) for name, problems in benchmarks.items()}
    for prompt_id, text in prompts:
        index.compare(prompt_id, text)
    return {name: [_result(one) for one in questions if one.prompts] for name, questions in added.items()}


def find_overlaps(
    prompts: Iterable[tuple[str, str]], problems: Sequence[BenchmarkProblem], n: int = N
) -> list[Overlap]:
    """The problems of one benchmark that share an n-gram with a training prompt.

    A question with fewer than n words is compared whole: it has to be all of a prompt, or one line of it. One whose
    every n-gram is common to its benchmark has to stand in a prompt from its first word to its last.

    Args:
        prompts: id and text of each, read once; their order does not matter.
        problems: of one benchmark.
        n: words of an n-gram.

    Returns:
        One entry a problem with an overlap, in the order of the problems.

    Raises:
        UserError: if n is less than 1.
    """
    return find_overlaps_of(prompts, {"": problems}, n)[""]
