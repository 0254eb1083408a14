"""The pass without gradient: right rows and columns for any micro-batch, and as many passes on every rank."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from rlvr.trainer.batch import Ranks
from rlvr.trainer.forward import Packed, Tokens
from rlvr.trainer.scoring import score_rows
from tests.ranks import run_ranks

B, T = 7, 6


def tokens(seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    prompt_lengths = torch.randint(1, 5, (B, 1), generator=generator)
    prompt_mask = (torch.arange(4) >= 4 - prompt_lengths).long()
    mask = (torch.arange(T) < torch.tensor([3, 1, 6, 0, 2, 5, 2]).unsqueeze(1)).long()
    prompts = torch.randint(2, 90, (B, 4), generator=generator) * prompt_mask
    return Tokens(prompts, prompt_mask, torch.randint(2, 90, (B, T), generator=generator) * mask, mask)


def pure(part: Tokens, projected: Tensor) -> tuple[Tensor, Tensor]:
    """Stands for a model: a function of the row's own tokens and of nothing else."""
    prompt = (part.prompt_ids * part.prompt_mask).sum(dim=1, keepdim=True)
    before = (part.completion_ids * part.completion_mask).cumsum(dim=1)
    logps = -(prompt + before).double() / 1000
    return logps.masked_fill(~projected, 0.0), (2 * logps.abs()).masked_fill(~projected, 0.0)


NEEDED = torch.tensor([True, False, True, False, True, True, False])


@pytest.mark.parametrize("micro", [1, 2, 3, 7, 50])
def test_results_land_in_their_rows_and_columns_for_any_micro_batch(micro: int) -> None:
    batch = tokens()
    shapes = []

    def forward(part: Tokens, projected: Tensor) -> tuple[Tensor, Tensor]:
        assert not torch.is_grad_enabled()
        lengths = part.prompt_mask.sum(dim=1) + part.completion_mask.sum(dim=1)
        shapes.append((len(lengths), int(lengths.max())))
        return pure(part, projected)

    logps, entropies = score_rows(forward, batch, NEEDED, micro, Ranks())
    inside = batch.completion_mask.bool() & NEEDED.unsqueeze(1)
    expected = pure(batch, inside)
    torch.testing.assert_close(logps, expected[0].float())
    torch.testing.assert_close(entropies, expected[1].float())
    assert (logps[~NEEDED] == 0).all()
    assert (logps[inside] != 0).all()
    assert len(shapes) == -(-4 // micro)
    assert sum(rows for rows, _ in shapes) == 4
    assert all(rows * longest <= micro * shapes[0][1] for rows, longest in shapes)
    assert [longest for _, longest in shapes] == sorted((longest for _, longest in shapes), reverse=True)


def test_passes_are_trimmed_to_what_was_sampled() -> None:
    shapes = []

    def forward(part: Tokens, projected: Tensor) -> tuple[Tensor, Tensor]:
        shapes.append(tuple(Packed.of(part, projected).input_ids.shape))
        return pure(part, projected)

    batch = tokens()
    score_rows(forward, batch, NEEDED, 1, Ranks())
    lengths = batch.prompt_mask[NEEDED].sum(dim=1) + batch.completion_mask[NEEDED].sum(dim=1)
    assert sorted(shapes) == sorted((1, int(length)) for length in lengths)


def test_rows_are_packed_flush_left_and_unpacked_into_their_places() -> None:
    # Two rows by hand: prompts (pad, 7) and (8, 9), completions (1, 2, 3) and (4, pad, pad); token 1 of the first and
    # token 0 of the second are wanted, so the first ends after token 1: 7 1 2 and 8 9 4.
    ids, mask = torch.tensor([[0, 7], [8, 9]]), torch.tensor([[0, 1], [1, 1]])
    completions, sampled = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    wanted = torch.tensor([[False, True, False], [True, False, False]])
    packed = Packed.of(Tokens(ids, mask, completions, sampled), wanted)
    assert packed.input_ids.tolist() == [[7, 1, 2], [8, 9, 4]]
    assert packed.mask.all()
    assert packed.projected.tolist() == [[False, False, True], [False, False, True]]
    scores = torch.tensor([[0.1, 0.2], [0.3, 0.4]])  # of the second and the third token of each row
    assert packed.unpack(scores, wanted).tolist() == torch.tensor([[0, 0.2, 0], [0.4, 0, 0]]).tolist()


def test_a_head_without_entropies_gives_zeros() -> None:
    _, entropies = score_rows(lambda part, at: (pure(part, at)[0], None), tokens(), NEEDED, 2, Ranks())
    assert (entropies == 0).all()


def test_no_row_at_all_is_no_pass() -> None:
    calls = []
    logps, _ = score_rows(lambda part, at: calls.append(1), tokens(), NEEDED & False, 2, Ranks())  # type: ignore[func-returns-value, arg-type, return-value]
    assert calls == []
    assert (logps == 0).all()


@pytest.mark.parametrize("needs", [(5, 1), (0, 3), (2, 2), (0, 0)])
def test_every_rank_makes_as_many_passes_as_the_busiest(needs: tuple[int, int]) -> None:
    def on_rank(rank: int) -> tuple[list[int], bool]:
        batch, needed = tokens(rank), torch.arange(B) < needs[rank]
        passes = []

        def forward(part: Tokens, projected: Tensor) -> tuple[Tensor, Tensor]:
            assert part.prompt_ids.shape[1] + part.completion_ids.shape[1] >= 2
            passes.append(int(projected.any(dim=1).sum()))
            return pure(part, projected)

        logps, _ = score_rows(forward, batch, needed, 2, Ranks(rank, 2, dist.group.WORLD))
        expected = pure(batch, batch.completion_mask.bool() & needed.unsqueeze(1))[0].float()
        return passes, torch.allclose(logps, expected)

    results = run_ranks(2, on_rank)
    assert all(right for _, right in results)
    assert {len(passes) for passes, _ in results} == {-(-max(needs) // 2)}
