"""What a forking-paths analysis is asked, and about which question."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr.data.base import Gold, Prompt
from rlvr.errors import UserError
from rlvr.rewards.policy import Policy

BASES = ("greedy", "sampled")
ID_LENGTH = 16


@dataclass(frozen=True)
class ForkSettings:
    """How the paths are drawn and read. The defaults are those of arXiv 2412.07961 and its code, but for the last two.

    Attributes:
        samples: S, continuations of each branch.
        start_samples: answers drawn from the bare prompt for o_0; every drift has their noise.
        threshold: a token is a branch if its probability is above this.
        alternates: branches of a position at most, beside the base token; the likeliest.
        stride: look at every k-th position.
        temperature: of the continuations, and of the probabilities of the branches.
        max_tokens: of a whole answer: base tokens, branch and continuation together.
        base: `greedy`, or `sampled` at the temperature.
        seed: of all draws.
        epsilon: L2 distance from which on a branch counts as leading elsewhere.
        alpha: chance that a path whose outcomes never change shows a change point.
    """

    samples: int = 30
    start_samples: int = 100
    threshold: float = 0.05
    alternates: int = 10
    stride: int = 1
    temperature: float = 1.0
    max_tokens: int = 512
    base: str = "greedy"
    seed: int = 0
    epsilon: float = 0.6
    alpha: float = 0.01

    def __post_init__(self) -> None:
        for name in ("samples", "start_samples", "stride", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")
        for name in ("alternates", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} is {getattr(self, name)}; expected 0 or more")
        if not 0 <= self.threshold < 1:
            raise UserError(f"--threshold is {self.threshold}; expected a probability below 1, e.g. 0.05")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"--temperature is {self.temperature}; expected a number above 0: forks need draws")
        if not self.epsilon > 0:
            raise UserError(f"--epsilon is {self.epsilon}; expected a distance above 0, e.g. 0.6")
        if not 0.005 <= self.alpha < 1:
            raise UserError(f"--alpha is {self.alpha}; expected a chance from 0.005 to below 1, e.g. 0.01")
        if self.base not in BASES:
            raise UserError(f"--base is {self.base!r}; expected one of {', '.join(BASES)}")

    def drawing(self) -> dict[str, Any]:
        """What outcomes depend on; those of one stride are good for another."""
        values = asdict(self)
        return {name: values[name] for name in values if name not in ("stride", "epsilon", "alpha")}


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        name: for people.
        prompt: text, or a chat that the model's own template renders.
        gold: the right answer; None if nobody knows.
        grading: where the answer stands, and how strictly it is compared.
        max_tokens: of an answer, where the benchmark says so.
    """

    name: str
    prompt: Prompt
    gold: Gold | None
    grading: Policy
    max_tokens: int | None = None


def benchmark_question(name: str, problem: str, protocol: str, folder: Path | None = None) -> Question:
    """A problem of a benchmark, as `rlvr evaluate` asks it.

    Args:
        name: of the benchmark, or a YAML of one's own.
        problem: its id, 16 hex digits, or its index from 0.
        protocol: gives the prompt's template and the rules of grading.
        folder: with the benchmark's files; None for the hub.

    Raises:
        UserError: if there is no such benchmark or problem.
    """
    from rlvr.config.evaluation import compose_evaluation
    from rlvr.evaluation.benchmarks import load_benchmark
    from rlvr.evaluation.protocol import protocol_of

    loaded = load_benchmark(name, folder)
    found = protocol_of(compose_evaluation([f"protocol={protocol}"]), loaded, "")
    index = _index(problem, [one.problem_id for one in loaded.problems], loaded.name)
    one = loaded.problems[index]
    title = f"{loaded.name} problem {index} ({one.problem_id})"
    return Question(title, found.render(one.question), one.gold, found.grading, loaded.max_tokens)


def _index(problem: str, ids: list[str], benchmark: str) -> int:
    if len(problem) == ID_LENGTH and problem in ids:
        return ids.index(problem)
    if problem.isdecimal() and int(problem) < len(ids):
        return int(problem)
    raise UserError(
        f"--problem is {problem}, but {benchmark} has no such problem; expected an index from 0 to {len(ids) - 1}, or "
        f"an id such as {ids[0]}"
    )
