"""`rlvr analyze forks`, from a model and a question to its files."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlvr.analysis.forking.cells import Cell, Cost, cells_of, check_budget, cost_of, looked_at
from rlvr.analysis.forking.change_points import check_installed
from rlvr.analysis.forking.ledger import Ledger, read_json
from rlvr.analysis.forking.path import BasePath, base_path, draw_base
from rlvr.analysis.forking.resample import Drawer
from rlvr.analysis.forking.result import ForkResult, analyse
from rlvr.analysis.forking.settings import ForkSettings, Question
from rlvr.errors import UserError
from rlvr.evaluation.wording import write_whole

SAY_EVERY = 10
"""Lines of progress, about."""

SHOWN_CHARACTERS = 200

Say = Callable[[str], None]


@dataclass(frozen=True)
class Policy:
    """A model that is asked.

    Attributes:
        label: for people.
        identity: hash of its weights and tokenizer.
        sampler: `BatchedSampler` of it.
    """

    label: str
    identity: str
    sampler: Any


@dataclass(frozen=True)
class Found:
    """The result, and what it came from."""

    result: ForkResult
    base: BasePath
    texts: list[str]
    cost: Cost
    facts: dict[str, Any]


def find_forks(
    policy: Policy, question: Question, settings: ForkSettings, out: Path, budget: int | None, say: Say = print
) -> Found:
    """Draw what the folder lacks, and analyse it.

    Args:
        policy: who answers.
        question: what is asked.
        settings: how.
        out: folder of the analysis; the same command goes on where it was stopped.
        budget: continuations that may be drawn; None for any number.
        say: takes lines for people. What it will cost is said before anything is drawn.

    Raises:
        UserError: for a base path that was cut, a folder of other settings, or more continuations than the budget.
    """
    from rlvr.evaluation.encoding import encode_requests
    from rlvr.evaluation.requests import Key, Request

    check_installed()
    sampler = policy.sampler
    prompt_ids = encode_requests(sampler.tokenizer, [Request(Key("forks", question.name, 0), question.prompt, 0)])[0]
    limit = sampler.room(prompt_ids, settings.max_tokens)
    if limit < 1:
        raise UserError(f"the prompt has {len(prompt_ids)} tokens, and the model reads {sampler.positions} at most")
    drawer = Drawer(sampler, prompt_ids, question, settings.seed, settings.temperature)
    with Ledger(out) as ledger:
        ledger.settle(_identity(policy, question, settings, prompt_ids))
        base = _base(out, sampler, prompt_ids, settings, limit)
        texts = token_texts(sampler.tokenizer, base.token_ids)
        cells = cells_of(base, settings, limit, sampler.ends)
        whole = cost_of(cells, len(base.token_ids))
        left = [cell for cell in cells if cell.key not in ledger.known]
        _say_cost(say, base, texts, cells, left, settings, drawer)
        every = cells_of(base, ForkSettings(**{**asdict(settings), "stride": 1}), limit, sampler.ends)
        unknown = [cell for cell in every if cell.key not in ledger.known]
        if budget is not None:
            check_budget(cost_of(left, len(base.token_ids)), unknown, len(base.token_ids), budget)
        _draw(drawer, ledger, left, say)
        one_text = _one_text(sampler.tokenizer)
        result = analyse(base, ledger.known, settings, texts, one_text)
    facts = {
        "model": policy.label, "checkpoint_hash": policy.identity, "question": question.name,
        "settings": asdict(settings), "base": "".join(texts), "base_tokens": len(base.token_ids),
    }  # fmt: skip
    return Found(result, base, texts, whole, facts)


def _identity(policy: Policy, question: Question, settings: ForkSettings, prompt_ids: list[int]) -> dict[str, Any]:
    """All that outcomes depend on, but for the last bits of the machine."""
    from rlvr.rewards.version import grader_version

    return {
        "model": policy.identity, "dtype": str(policy.sampler.model.dtype).removeprefix("torch."),
        "prompt_ids": prompt_ids, "gold": question.gold, "grading": asdict(question.grading),
        "grader": grader_version(), **settings.drawing(),
    }  # fmt: skip


def _base(out: Path, sampler: Any, prompt_ids: list[int], settings: ForkSettings, limit: int) -> BasePath:
    """The base path of the folder; drawn where there is none yet."""
    path = out / "base.json"
    if path.exists():
        there = read_json(path)
        branches = [[(token, prob) for token, prob in position] for position in there["branches"]]
        return BasePath(there["token_ids"], there["entropies"], branches)
    base = base_path(sampler.model, prompt_ids, draw_base(sampler, prompt_ids, settings, limit), settings)
    write_whole(path, json.dumps(asdict(base)) + "\n")
    return base


def token_texts(tokenizer: Any, token_ids: list[int]) -> list[str]:
    """The text of each token of an answer; special tokens by their names."""
    from rlvr.report.tokens import pieces

    return pieces(lambda ids: tokenizer.decode(ids, skip_special_tokens=False), token_ids)


def _one_text(tokenizer: Any) -> Callable[[int], str]:
    return lambda token: str(tokenizer.decode([token], skip_special_tokens=False))


def _say_cost(
    say: Say, base: BasePath, texts: list[str], cells: Sequence[Cell], left: Sequence[Cell], settings: ForkSettings,
    drawer: Drawer,
) -> None:  # fmt: skip
    """What is to be drawn, before it is."""
    length = len(base.token_ids)
    places = looked_at(base, settings.stride)
    cost, whole = cost_of(left, length), cost_of(cells, length)
    text = "".join(texts)
    shown = repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")
    say(f"base path: {length} tokens, {settings.base}: {shown}")
    there = whole.continuations - cost.continuations
    say(
        f"{len(places)} positions, {len(cells) - 1} branches: {cost.continuations:,} continuations to draw"
        + (f", {there:,} are there already" if there else "")
    )
    if not cost.continuations:
        return
    speed = drawer.speed(left)
    say(
        f"at most {cost.tokens_at_most:,} tokens; about {cost.tokens_like_base:,} if answers are as long as the base "
        f"path: about {cost.tokens_like_base / speed:.0f} s, at most {cost.tokens_at_most / speed:.0f} s, at the "
        f"{speed:,.0f} tokens a second of a short probe"
    )


def _draw(drawer: Drawer, ledger: Ledger, left: Sequence[Cell], say: Say) -> None:
    """Draw cells and keep them."""
    wanted, done, said = sum(cell.samples for cell in left), 0, 0
    for found in drawer.draw(left):
        ledger.add(found)
        done += sum(len(one.answers) for one in found)
        if done * SAY_EVERY // wanted > said and done < wanted:
            said = done * SAY_EVERY // wanted
            say(f"{done:,} of {wanted:,} outcomes")
