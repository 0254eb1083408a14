"""Selection inside the loss, from the current policy: which tokens, and whether to look before training them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import Ranks, Slice
from rlvr.trainer.loss import Sums


def pays(trunk: int, head: int, keep: float) -> bool:
    """Whether a pass without gradient before the gradient pass saves more than it costs.

    Per candidate, in multiples of 2 FLOPs a weight: one pass takes 3 of the trunk (forward, two products backward)
    and 4 of the head (which computes its forward once more on the way back). Two passes take 4 of the trunk, and of
    the head 1 and 4 * keep.

    Args:
        trunk: weights that every token is multiplied with, but the head's.
        head: weights of the head, hidden size times vocabulary.
        keep: share of the candidates that is kept.
    """
    return (3 - 4 * keep) * head > trunk


def looks_first(trainer: Any) -> bool:
    """Whether a trainer's slices are looked at before they are trained.

    Only where the loss selects, and nothing but the selected tokens needs the head.
    """
    algorithm: Algorithm = trainer.algorithm
    objective, selection = algorithm.objective, algorithm.selection
    if not selection.inside_loss or not trainer.sparse_head:
        return False
    if objective.beta > 0 or objective.entropy_temperature is not None:
        return False
    trunk, head = _weights(trainer.model)
    return pays(trunk, head, selection.keep)


def _weights(model: Any) -> tuple[int, int]:
    """Weights of the trunk and of the head; sharded ones count whole."""

    def count(parameter: Tensor) -> int:
        return int(getattr(parameter, "ds_numel", parameter.numel()))

    embeddings = {
        id(module.weight): module.weight for module in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    everything = sum(count(parameter) for parameter in model.parameters())
    return everything - sum(map(count, embeddings.values())), count(model.get_output_embeddings().weight)


def entropies_of(trainer: Any, model: Any, part: Slice) -> Tensor:
    """(N, T) entropies of the current policy at the candidates of a slice, nats, by a pass without gradient."""
    with torch.no_grad():
        entropies = trainer._forward(model, part.tokens, part.projected)[1]
    assert entropies is not None, "the policy's head gives entropies; only a reference model's does not"
    return entropies


def _choose(
    part: Slice, entropies: Tensor, algorithm: Algorithm, ranks: Ranks, seed: int, step: int
) -> tuple[Tensor, Sums]:
    """The selection (N, T) of a `micro_batch*` scope, from the current policy's entropies (N, T), and sums about it."""
    selection, candidates = algorithm.selection, part.kept
    group = ranks.group if selection.scope == "micro_batch_all_ranks" else None
    kept = selection(entropies, candidates, rows=part.rows, seed=seed, step=step, process_group=group).mask
    dropped, values = candidates & ~kept, entropies.detach()
    return kept, {
        "selection/kept_fraction": (kept.sum(), candidates.sum()),
        "selection/entropy_kept": (values[kept].sum(), kept.sum()),
        "selection/entropy_dropped": (values[dropped].sum(), dropped.sum()),
    }


def narrowed(
    part: Slice, entropies: Tensor, algorithm: Algorithm, ranks: Ranks, seed: int = 0, step: int = 0
) -> tuple[Slice, Sums]:
    """The slice with its tokens chosen, and sums about the choice; what only they need is projected from here on.

    Args:
        part: the slice; `kept` are its candidates.
        entropies: (N, T) nats, of the current policy.
        algorithm: whose selection chooses.
        ranks: the processes that share the step.
        seed: the run's, for random selection.
        step: the optimizer step, likewise.
    """
    kept, sums = _choose(part, entropies, algorithm, ranks, seed, step)
    row_tokens = kept.sum(dim=1).clamp(min=1) if algorithm.divides_by_kept else part.row_tokens
    projected = part.projected & (kept | part.kl_mask)
    return replace(part, kept=kept, projected=projected, row_tokens=row_tokens), sums
