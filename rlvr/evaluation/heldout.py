"""Accuracy on problems kept back: sample an answer to each, and grade it with the function that rewards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlvr.data.base import Problem
from rlvr.evaluation.backends.transformers import TransformersBackend
from rlvr.evaluation.requests import Key, Request, sample_seed
from rlvr.rewards.grade import grade_many
from rlvr.rewards.policy import Policy
from rlvr.rewards.verdict import Verdict
from rlvr.sampling.settings import Sampling


@dataclass(frozen=True)
class Answer:
    """One sampled and graded answer.

    Attributes:
        problem: what was asked.
        completion: text without special tokens.
        tokens: length, the end-of-text token included.
        truncated: cut at the limit.
        verdict: of the grader.
    """

    problem: Problem
    completion: str
    tokens: int
    truncated: bool
    verdict: Verdict


def accuracy(answers: Sequence[Answer]) -> float:
    """Share of right answers; 0 for none at all."""
    return sum(answer.verdict.correct for answer in answers) / max(len(answers), 1)


def sample_and_grade(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    policy: Policy | None = None,
) -> list[Answer]:
    """Sample one answer to each problem, as `rlvr evaluate` does, and grade it.

    No generator is used, so that evaluating does not change a training run; each problem has its own seed, so that the
    same problem is asked alike before and after, whatever the batch.

    Args:
        model: a causal language model that can `generate`; its mode is restored.
        tokenizer: its tokenizer.
        problems: what to ask, in this order.
        max_new_tokens: tokens; an answer that does not end within them is never correct.
        temperature: of sampling; 0 for greedy.
        seed: of the sampling.
        batch_size: problems generated for at once.
        policy: the rules of grading, as for the reward; None for the default.

    Returns:
        One answer per problem, in order.
    """
    keys = [Key("heldout", problem.prompt_id, index) for index, problem in enumerate(problems)]
    requests = [
        Request(key, problem.prompt, sample_seed(seed, key)) for key, problem in zip(keys, problems, strict=True)
    ]
    backend = TransformersBackend(model, tokenizer, batch_size)
    was_training = model.training
    model.eval()
    try:
        sampling = Sampling(temperature=temperature, max_tokens=max_new_tokens)
        drawn = {sample.key: sample for samples in backend.generate(requests, sampling) for sample in samples}
    finally:
        model.train(was_training)
    samples = [drawn[key] for key in keys]
    cut = [sample.finish_reason == "length" for sample in samples]
    golds = [problem.gold for problem in problems]
    verdicts = grade_many([sample.completion for sample in samples], golds, cut, policy=policy)
    return [
        Answer(problem, sample.completion, sample.token_count, truncated, verdict)
        for problem, sample, truncated, verdict in zip(problems, samples, cut, verdicts, strict=True)
    ]
