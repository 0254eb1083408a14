"""Which rank trains on which group: as many groups on each, and as equal work as whole groups allow."""

from collections.abc import Sequence

from rlvr.config.algebra import BatchSizes


def deal(costs: Sequence[float], sizes: BatchSizes) -> list[int]:
    """The rank of each group of a rollout batch.

    Ranks wait for one another in every optimizer step, so each gets equally many groups of a step, and the costliest
    group goes to the rank with the least work so far in that step (longest processing time first, Graham 1969: at
    most 4/3 of the best there is, but for the equal counts). A group without gradient costs nothing. Where rows of a
    group belong to different steps unevenly, ranks keep equal contiguous shares.

    Args:
        costs: (P,) work in each group of all ranks, in order; e.g. tokens to forward.
        sizes: the batch algebra.

    Returns:
        (P,) rank indices. A function of its arguments alone, so every rank finds the same.

    Raises:
        ValueError: unless there is a cost for each of the P groups.
    """
    if len(costs) != sizes.prompts:
        raise ValueError(f"{len(costs)} costs were given for {sizes.prompts} groups")
    updates, ranks = sizes.updates_per_rollout, sizes.ranks
    even = sizes.window == "group" or sizes.num_generations % updates == 0
    if ranks == 1 or not even:
        share = sizes.prompts // ranks
        return [group // share for group in range(sizes.prompts)]
    steps = updates if sizes.window == "group" else 1
    result = [0] * sizes.prompts
    for step in range(steps):
        groups = sorted(range(step, sizes.prompts, steps), key=lambda group: (-costs[group], group))
        work, room = [0.0] * ranks, [len(groups) // ranks] * ranks
        for group in groups:
            rank = min((rank for rank in range(ranks) if room[rank]), key=lambda rank: (work[rank], rank))
            result[group], work[rank], room[rank] = rank, work[rank] + costs[group], room[rank] - 1
    return result
