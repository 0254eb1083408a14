"""The same update, however rows are planned, trimmed, dropped, dealt to ranks and projected: that of one dense pass."""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.trainer.batch import Ranks, Slice
from tests.ranks import run_ranks
from tests.trainer.dense_update import Dense, prepared
from tests.trainer.same_update import Case, Ours, Update, draw, make_batch

ALONE = Ranks()
TOLERANCE = 1e-5
ATTENTION_FLOOR = 1e-2
SCORE_TOLERANCE = 2e-5  # nats, of log-probabilities in float32 down to -20

Change = Callable[[Slice], Slice]

SCOPES = ("rollout", "group", "sequence", "micro_batch", "micro_batch_all_ranks")
REDUCTIONS = ("token_mean", "token_mean_rollout", "sequence_mean", "sequence_sum", "constant")
PRODUCT = [*itertools.product(SCOPES, ("kept", "all"), REDUCTIONS), ("micro_batch", "released", "token_mean")]


def unchanged(part: Slice) -> Slice:
    """The slice as it is."""
    return part


def gap(found: Tensor, wanted: Tensor, floor: float = 0.0) -> float:
    """Relative L2 distance; of zeros only zeros are right."""
    distance, norm = float((found - wanted).norm()), max(float(wanted.norm()), floor)
    return distance / norm if norm else math.inf if distance else 0.0


def gaps(found: Update, wanted: Update, size: float) -> dict[str, float]:
    """How far apart two updates are: the loss, the whole gradient, and every parameter's.

    A loss is compared with `size`, the sum of its terms' absolute values, since terms of both signs cancel. So do the
    terms in the backward pass of an attention's softmax, down to 0 where a row has a single token: the gradient of
    queries and keys is compared with a hundredth of the whole if it is smaller than that.
    """
    names = list(wanted[1])
    whole, wanted_whole = (torch.cat([update[1][name].flatten() for name in names]) for update in (found, wanted))
    floor = ATTENTION_FLOOR * float(wanted_whole.norm())
    cancels = {name for name in names if re.search(r"\.[qk]_(proj|norm)\.", name)}
    return {
        "loss": gap(torch.tensor(found[0]), torch.tensor(wanted[0]), size),
        "gradient": gap(whole, wanted_whole),
        **{name: gap(found[1][name], wanted[1][name], floor if name in cancels else 0.0) for name in names},
    }


def differences(case: Case, ranks: Ranks = ALONE, change: Change = unchanged) -> dict[str, float]:
    """The largest gaps over the steps of a case; on the first rank, which speaks for all."""
    case, dense, policy = prepared(case)
    ours, worst = Ours(case, dense.batch, ranks), {}
    assert case.inside_loss or torch.equal(ours.decided.kept, dense.kept[ours.rows]), f"another mask: {case}"
    check_scores(ours, dense, policy)
    for step in range(case.updates):
        found = ours.update(policy, step, change)
        if ranks.index == 0:
            here = gaps(found, dense.update(step), float(dense.step_loss(step, size=True).detach()))
            worst = {name: max(value, worst.get(name, 0.0)) for name, value in here.items()}
    return worst


def check_scores(ours: Ours, dense: Dense, policy: Any) -> None:
    """Assert that the planned pass without gradient finds the dense numbers in the rows that need them."""
    inside = dense.batch["completion_mask"][ours.rows].bool() & ours.needed.unsqueeze(1)
    for found, numbers in zip(ours.scored(policy), (dense.logps.detach(), dense.entropies), strict=True):
        wanted = torch.where(inside, numbers[ours.rows], 0.0).float()
        torch.testing.assert_close(found, wanted, rtol=0, atol=SCORE_TOLERANCE, msg=str(ours.case))


def check(case: Case, ranks: Ranks = ALONE) -> None:
    """Assert that ours is the dense update."""
    worst = differences(case, ranks)
    far = {name: value for name, value in worst.items() if not value <= TOLERANCE}
    assert not far, f"{far} in {case}"


def cases(ranks: int, repeats: int) -> dict[tuple[str, str], list[Case]]:
    """Settings by (scope, normaliser), every reduction `repeats` times; 1 to 8 slices in a step take turns."""
    found: dict[tuple[str, str], list[Case]] = {}
    for number, (scope, normalizer, reduction) in enumerate(PRODUCT * repeats):
        found.setdefault((scope, normalizer), []).append(
            draw(1000 * ranks + number, scope, normalizer, reduction, ranks)
        )
    return found


def entropy_cases(ranks: int) -> list[Case]:
    """The objective that differentiates entropies, in every scope."""
    settings = enumerate(itertools.product(SCOPES, ("kept", "all")))
    return [
        draw(3000 * ranks + number, scope, normalizer, REDUCTIONS[number % 5], ranks, objective="entropy")
        for number, (scope, normalizer) in settings
    ]


def learned_cases(ranks: int) -> list[Case]:
    """A model with learned absolute positions, and prompts of several lengths."""
    fixed = {"model": "gpt2", "prompt_tokens": 6, "vocabulary": 23}
    return [
        draw(5000 * ranks + number, scope, "kept", REDUCTIONS[number % 5], ranks, **fixed)
        for number, scope in enumerate(SCOPES * 2)
    ]


@pytest.mark.parametrize("setting", cases(1, 2), ids="-".join)
def test_update_and_scores_are_those_of_one_dense_pass(setting: tuple[str, str]) -> None:
    for case in cases(1, 2)[setting]:
        check(case)


def test_the_update_by_entropies_is_that_of_one_dense_pass() -> None:
    for case in entropy_cases(1):
        check(case)


def test_flush_left_rows_have_the_positions_they_were_sampled_at() -> None:
    for case in learned_cases(1):
        check(case)
    case, dense, _ = prepared(learned_cases(1)[0])
    columns = torch.arange(case.prompt_tokens + case.tokens).unsqueeze(0)
    padding_counted = Dense(case, dense.batch, dense.plain, columns).logps
    away = (padding_counted - dense.logps).detach().abs()[dense.lossy]
    assert float(away.max()) > 0.1, "positions counted from the padding are others: nats"


def on_rank(rank: int, settings: list[Case]) -> int:
    ranks = Ranks.current()
    assert (ranks.index, ranks.count) == (rank, 2)
    for case in settings:
        check(case, ranks)
    return len(settings)


def test_two_ranks_make_the_update_of_one_dense_pass() -> None:
    settings = [*itertools.chain(*cases(2, 1).values()), *entropy_cases(2), *learned_cases(2)]
    assert run_ranks(2, on_rank, settings) == [len(settings)] * 2


def shifted(part: Slice) -> Slice:
    """The first row's completion one position off."""
    ids = part.tokens.completion_ids.clone()
    ids[0] = ids[0].roll(1)
    return replace(part, tokens=replace(part.tokens, completion_ids=ids))


CONTROLS: dict[str, Change] = {
    "a completion one position off": shifted,
    "divided again by the slices": lambda part: replace(part, divisor=2 * part.divisor),
    "credit of another row": lambda part: replace(part, advantages=part.advantages.flip(0)),
    "old log-probabilities of the next token": lambda part: replace(part, old_logps=part.old_logps.roll(1, 1)),
    "a token lost": lambda part: replace(part, kept=part.kept & (part.kept.flatten().cumsum(0) > 1).view_as(part.kept)),
    "a KL term by the policy's divisor": lambda part: replace(part, kl_divisor=part.divisor),
    "padding attended to": lambda part: replace(
        part, tokens=replace(part.tokens, prompt_mask=torch.ones_like(part.tokens.prompt_mask))
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CONTROLS)
def test_a_fault_is_seen(fault: str) -> None:
    shape = {"accumulation": 2, "group": 4, "micro": 4, "updates": 1, "window": "group", "tokens": 8, "vocabulary": 23}
    case = draw(
        1, "rollout", "kept", "token_mean", 1, **shape, rule="top", keep=0.5, candidates="all", on_policy=False,
        mask_truncated=False, beta=0.05, kl_tokens="all", credit="grpo", sampler=False, poisoned=False, sparse=True,
        prompt_tokens=5,
    )  # fmt: skip
    check(case)
    worst = differences(case, change=CONTROLS[fault])
    assert worst["gradient"] > 100 * TOLERANCE, f"{fault}: {worst['gradient']:.1e}"


def test_the_cases_meet_what_planning_does() -> None:
    for ranks in (1, 2):
        drawn = list(itertools.chain(*cases(ranks, 2 if ranks == 1 else 1).values()))
        for name, values in {
            "accumulation": range(1, 9), "group": (2, 3, 4), "micro": (1, 2, 3, 4), "updates": (1, 2),
            "window": ("group", "row"), "keep": (0.05, 0.2, 0.5, 1.0), "rule": ("top", "bottom", "random", "all"),
            "beta": (0.0, 0.05), "kl_tokens": ("all", "kept"), "credit": ("grpo", "given"), "tied": (False, True),
            "on_policy": (False, True), "mask_truncated": (False, True), "candidates": ("all", "informative"),
            "sampler": (False, True), "sparse": (False, True),
        }.items():  # fmt: skip
            assert {getattr(case, name) for case in drawn} == set(values), f"{name} on {ranks} ranks"
        assert any(case.dealt for case in drawn) == (ranks > 1)
        looks = [Ours(case, make_batch(case), ALONE).looks_first for case in drawn if case.inside_loss and ranks == 1]
        assert ranks == 2 or {False, True} <= set(looks)
    met = dict.fromkeys(("a slice without rows", "a row left out", "a row cut", "an empty row", "a solved group"), 0)
    for case in itertools.chain(*cases(1, 2).values()):
        ours = Ours(case, batch := make_batch(case), ALONE)
        parts = list(itertools.chain(*map(ours.slices, range(case.updates))))
        lengths = batch["completion_mask"].sum(dim=1)
        trained = [row for part in parts if not part.empty for row in part.rows.tolist()]
        cut = [int(lengths[part.rows].max()) > part.projected.shape[1] for part in parts if not part.empty]
        rewards = batch["rewards"].view(-1, case.group)
        counts = (
            sum(part.empty for part in parts), len(lengths) - len(trained), sum(cut), int((lengths == 0).sum()),
            int((rewards.amin(1) == rewards.amax(1)).sum()),
        )  # fmt: skip
        met = {name: total + count for (name, total), count in zip(met.items(), counts, strict=True)}
    assert min(met.values()) >= 10, met
