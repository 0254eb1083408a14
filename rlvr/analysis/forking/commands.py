"""`rlvr analyze forks`. Imported for `rlvr --help`, so it imports what is heavy inside its functions."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.errors import UserError

if TYPE_CHECKING:
    from rlvr.analysis.forking.run import Policy
    from rlvr.analysis.forking.settings import ForkSettings, Question

BUDGET = 20_000
MAX_TOKENS = 512

EXAMPLES = """examples:
  rlvr analyze forks builtin                                        the first problem of the built-in task
  rlvr analyze forks runs/x --problem 7                             another one, the newest checkpoint of a run
  rlvr analyze forks ./Qwen3-8B --benchmark aime24 --problem 3 --max-tokens 4096 --stride 16
  rlvr analyze forks builtin --prompt '7+4*2-3=' --gold 12          a question of one's own

The same command goes on where it was stopped. docs/forking_paths.md says what it costs and how to read it.
"""


def add_parser(actions: Any) -> None:
    """Add the action."""
    forks = actions.add_parser(
        "forks", help="find the tokens of an answer that decide its outcome", epilog=EXAMPLES,
        description="Forking paths (arXiv 2412.07961): draw an answer anew from each position and likely token.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    forks.add_argument("model", metavar="MODEL", help="builtin, a folder, a run folder or a hub id")
    _question_options(forks)
    for name, kind, default, about in (
        ("samples", int, 30, "continuations of each branch"),
        ("start-samples", int, 100, "answers from the bare prompt"),
        ("threshold", float, 0.05, "probability above which a token is a branch"),
        ("alternates", int, 10, "branches of a position at most, beside the base token"),
        ("stride", int, 1, "look at every k-th position"),
        ("temperature", float, 1.0, "of continuations and branches"),
        ("seed", int, 0, "of all draws"),
        ("epsilon", float, 0.6, "distance of outcomes that counts as elsewhere, for survival"),
        ("alpha", float, 0.01, "chance of a fork where outcomes never change"),
        ("batch-size", int, 256, "rows generated for at once; memory and speed only"),
    ):
        forks.add_argument(f"--{name}", type=kind, default=default, help=f"{about} ({default})")
    forks.add_argument(
        "--max-tokens", type=int, metavar="N", help=f"of a whole answer; the benchmark's, or {MAX_TOKENS}"
    )
    forks.add_argument("--base", choices=("greedy", "sampled"), default="greedy", help="the base path (greedy)")
    forks.add_argument("--budget", type=int, default=BUDGET, metavar="N", help=f"continuations at most ({BUDGET:,})")
    forks.add_argument("--yes", action="store_true", help="draw them, however many there are")
    forks.add_argument("--out", type=Path, default=Path("forks"), metavar="DIR", help="of this analysis (forks)")
    forks.add_argument("--format", choices=("svg", "png", "pdf"), default="svg", help="of the figure (svg)")


def _question_options(forks: argparse.ArgumentParser) -> None:
    forks.add_argument("--prompt", metavar="TEXT", help="a question of one's own, put as it is")
    forks.add_argument("--gold", metavar="TEXT", help="its right answer, if known")
    forks.add_argument("--extract", metavar="RULE", help="boxed, answer_line or last_number; the protocol's, or boxed")
    forks.add_argument(
        "--benchmark", default="arithmetic", metavar="NAME", help="where the problem is from (arithmetic)"
    )
    forks.add_argument("--problem", metavar="WHICH", help="index from 0, or id (0)")
    forks.add_argument("--protocol", default="paper_8020", metavar="NAME", help="how it is put (paper_8020)")
    forks.add_argument("--benchmarks-dir", type=Path, metavar="DIR", help="the benchmark's file, instead of the hub")


def forks(arguments: argparse.Namespace) -> int:
    """`rlvr analyze forks`."""
    from rlvr.analysis.forking.output import finding_of, write_summary
    from rlvr.analysis.forking.page import write_page
    from rlvr.analysis.forking.run import find_forks
    from rlvr.analysis.output import publish

    question = _question(arguments)
    settings = _settings(arguments, question)
    policy = _policy(arguments)
    budget = None if arguments.yes else arguments.budget
    found = find_forks(policy, question, settings, arguments.out, budget)
    title = f"Forks of {policy.label} on {question.name}"
    summary = write_summary(arguments.out, found.result, found.facts, found.cost)
    paths = [summary, write_page(arguments.out, found, title)]
    finding = finding_of(found.result, title)
    publish(finding, arguments.out, arguments.format, f"rlvr analyze temperatures {arguments.model}")
    finer = f"; a finer look: the same command with --stride {arguments.stride // 2}" if arguments.stride > 1 else ""
    print(f"wrote {paths[0]} and {paths[1]}{finer}")
    return 0


def _question(arguments: argparse.Namespace) -> "Question":
    from dataclasses import replace

    from rlvr.analysis.forking.settings import Question, benchmark_question
    from rlvr.rewards.policy import Policy

    if arguments.prompt is not None:
        if arguments.problem is not None:
            raise UserError("--prompt and --problem name two questions; leave one of them out")
        if not arguments.prompt:
            raise UserError("--prompt is empty; expected a question")
        return Question(
            repr(arguments.prompt), arguments.prompt, arguments.gold, Policy(extract=arguments.extract or "boxed")
        )
    if arguments.gold is not None:
        raise UserError("--gold belongs to --prompt; the problems of a benchmark have their own")
    found = benchmark_question(
        arguments.benchmark, arguments.problem or "0", arguments.protocol, arguments.benchmarks_dir
    )
    return (
        found
        if arguments.extract is None
        else replace(found, grading=replace(found.grading, extract=arguments.extract))
    )


def _settings(arguments: argparse.Namespace, question: "Question") -> "ForkSettings":
    from rlvr.analysis.forking.settings import ForkSettings

    if arguments.budget < 0:
        raise UserError(f"--budget is {arguments.budget}; expected a number of continuations, 0 or more")
    most = question.max_tokens or MAX_TOKENS
    return ForkSettings(
        samples=arguments.samples, start_samples=arguments.start_samples, threshold=arguments.threshold,
        alternates=arguments.alternates, stride=arguments.stride, temperature=arguments.temperature,
        max_tokens=most if arguments.max_tokens is None else arguments.max_tokens, base=arguments.base,
        seed=arguments.seed, epsilon=arguments.epsilon, alpha=arguments.alpha,
    )  # fmt: skip


def _policy(arguments: argparse.Namespace) -> "Policy":
    from rlvr.analysis.forking.run import Policy
    from rlvr.analysis.scoring import open_policy
    from rlvr.evaluation.checkpoints import checkpoint_hash, find_checkpoints
    from rlvr.sampling.batched import BatchedSampler

    model, tokenizer = open_policy(arguments.model)
    checkpoint = find_checkpoints([arguments.model])[-1]
    sampler = BatchedSampler(model, tokenizer, arguments.batch_size)
    return Policy(checkpoint.label, checkpoint_hash(checkpoint.path), sampler)


ACTIONS = {"forks": forks}
