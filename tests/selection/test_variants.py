"""The selections a configuration can name, what they refuse, and what TRL and the released code would keep."""

from types import SimpleNamespace

import pytest
import torch
from trl import GRPOTrainer

from rlvr.errors import UserError
from rlvr.selection.all_tokens import AllTokens
from rlvr.selection.bottom_entropy import BottomEntropy
from rlvr.selection.random_tokens import RandomTokens
from rlvr.selection.select import SCOPES, select_tokens
from rlvr.selection.top_entropy import TopEntropy

ENTROPIES = torch.rand(4, 25, generator=torch.Generator().manual_seed(0))
MASK = torch.rand(4, 25, generator=torch.Generator().manual_seed(1)) < 0.8


@pytest.mark.parametrize(
    ("selection", "rule", "keep"),
    [
        (AllTokens(), "all", 1.0),
        (TopEntropy(), "top_entropy", 0.2),
        (BottomEntropy(), "bottom_entropy", 0.8),
        (RandomTokens(), "random", 0.2),
    ],
)
def test_a_selection_calls_its_rule_with_its_numbers(selection, rule: str, keep: float) -> None:
    where = {"candidates": torch.tensor([True, True, False, True]), "seed": 3, "step": 5}
    result = selection(ENTROPIES, MASK, **where)
    expected = select_tokens(ENTROPIES, MASK, keep=keep, rule=rule, **where)
    assert torch.equal(result.mask, expected.mask)
    assert selection.kept_count(result.candidates) == result.kept == int(result.mask.sum())


def test_the_scope_of_a_selection_reaches_the_tokens() -> None:
    result = TopEntropy(scope="sequence")(ENTROPIES, MASK)
    assert torch.equal(result.mask, select_tokens(ENTROPIES, MASK, scope="sequence").mask)
    assert not torch.equal(result.mask, select_tokens(ENTROPIES, MASK).mask)


def test_published_algorithms_divide_by_all_tokens_and_selections_by_the_kept_ones() -> None:
    assert AllTokens().normalizer == "all"
    assert {TopEntropy().normalizer, BottomEntropy().normalizer, RandomTokens().normalizer} == {"kept"}


def test_only_the_micro_batch_scopes_decide_inside_the_loss() -> None:
    inside = {scope for scope in SCOPES if TopEntropy(scope=scope).inside_loss}
    assert inside == {"micro_batch", "micro_batch_all_ranks"}


@pytest.mark.parametrize("keep", [0.1, 0.2, 0.5])
def test_without_ties_trl_keeps_the_same_tokens(keep: float) -> None:
    alone = SimpleNamespace(pad_across_processes=lambda values, **_: values, gather=lambda values: values)
    theirs = GRPOTrainer.get_high_entropy_mask(SimpleNamespace(accelerator=alone), ENTROPIES, MASK, 1 - keep)
    ours = select_tokens(ENTROPIES, MASK, keep=keep, scope="micro_batch_all_ranks")
    assert torch.equal(ours.mask, theirs)


@pytest.mark.parametrize("keep", [0.1, 0.2, 0.5])
def test_without_ties_the_released_code_keeps_the_same_tokens(keep: float) -> None:
    values = ENTROPIES[MASK]  # get_global_entropy_top_mask of Beyond-the-80-20-Rule-RLVR
    top = torch.zeros(len(values), dtype=torch.bool)
    top[torch.topk(values, max(1, int(len(values) * keep + 0.9999))).indices] = True
    ours = select_tokens(ENTROPIES, MASK, keep=keep, scope="micro_batch")
    assert torch.equal(ours.mask[MASK], top)
    assert not ours.mask[~MASK].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopEntropy(keep=0), "selection.keep is 0; expected a share above 0 and at most 1, e.g. 0.2"),
        (lambda: TopEntropy(keep=20), "selection.keep is 20; expected a share"),
        (lambda: TopEntropy(keep=float("nan")), "selection.keep is nan; expected a share"),
        (lambda: TopEntropy(scope="batch"), "selection.scope is 'batch'; expected one of rollout, group, sequence"),
        (lambda: TopEntropy(candidates="some"), "selection.candidates is 'some'; expected one of all, informative"),
        (lambda: TopEntropy(normalizer="mean"), "selection.normalizer is 'mean'; expected one of kept, all, released"),
        (
            lambda: TopEntropy(normalizer="released"),
            "normalizer=released with selection.scope=rollout; .*set selection.scope=micro_batch",
        ),
        (lambda: TopEntropy(normalizer="released", scope="micro_batch_all_ranks"), "scope=micro_batch_all_ranks"),
        (
            lambda: AllTokens(keep=0.5),
            "selection=all keeps every token, but selection.keep is 0.5; choose algorithm=dapo",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_what_was_expected(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_the_released_normaliser_is_accepted_with_the_released_scope() -> None:
    assert TopEntropy(normalizer="released", scope="micro_batch").inside_loss
