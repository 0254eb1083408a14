"""Accuracy on problems kept back: sample an answer to each, and grade it with the function that rewards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlvr.data.base import Problem
from rlvr.rewards.grade import grade_many
from rlvr.rewards.policy import Policy
from rlvr.rewards.verdict import Verdict


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


def encode_prompts(tokenizer: Any, problems: Sequence[Problem]) -> Any:
    """Left-padded `input_ids` and `attention_mask`, as in training: chats go through the tokenizer's template, which
    writes the special tokens itself; plain prompts get the tokenizer's."""
    chats = any(not isinstance(problem.prompt, str) for problem in problems)
    texts = [
        problem.prompt
        if isinstance(problem.prompt, str)
        else tokenizer.apply_chat_template(problem.prompt, tokenize=False, add_generation_prompt=True)
        for problem in problems
    ]
    return tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False,
        add_special_tokens=not chats,
    )  # fmt: skip


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
    """Sample one answer to each problem and grade it.

    The generators of the caller are left as they were, so that evaluating does not change a training run.

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
    devices = [model.device] if model.device.type == "cuda" else []
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            return [
                answer
                for start in range(0, len(problems), batch_size)
                for answer in _batch(
                    model, tokenizer, problems[start : start + batch_size], max_new_tokens, temperature, policy
                )
            ]
    finally:
        model.train(was_training)


def _batch(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    max_new_tokens: int,
    temperature: float,
    policy: Policy | None,
) -> list[Answer]:
    inputs = encode_prompts(tokenizer, problems).to(model.device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    ends = model.generation_config.eos_token_id
    end_ids = {tokenizer.eos_token_id, *([ends] if isinstance(ends, int) else ends or [])}
    output = model.generate(
        **inputs, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=sorted(end_ids),
        top_p=1.0, top_k=0, **sampling,
    )  # fmt: skip
    rows = [_until_end(row, end_ids) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    truncated = [row[-1] not in end_ids for row in rows]
    verdicts = grade_many(texts, [problem.gold for problem in problems], truncated, policy=policy)
    return [
        Answer(problem, text, len(row), cut, verdict)
        for problem, text, row, cut, verdict in zip(problems, texts, rows, truncated, verdicts, strict=True)
    ]


def _until_end(token_ids: list[int], end_ids: set[int]) -> list[int]:
    """The tokens up to and with the first that ends the text."""
    for index, token in enumerate(token_ids):
        if token in end_ids:
            return token_ids[: index + 1]
    return token_ids
