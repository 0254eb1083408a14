"""Groups of completions one by one: taken out of a batch, moved between ranks, put together into another."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlvr.launch.agreement import everywhere
from rlvr.maths.groups import has_spread
from rlvr.maths.rollouts import Rollouts
from rlvr.trainer.batch import Ranks, Recorded, Sampled, Scores
from rlvr.trainer.forward import Tokens


@dataclass
class Group:
    """The G completions of one prompt, without padding, on the CPU.

    Attributes:
        number: place in the order of sampling, over all ranks and rounds.
        prompt: the row of the data.
        prompt_ids: (Tp,) int64.
        completion_ids: G tensors (T_i,) int64.
        rewards: (G, functions), NaN where a function gave none.
        total: (G,) their weighted sum.
        truncated: (G,) bool.
        completions: G texts or chats, for the record.
        verdicts: G verdicts of the grader, or none.
        sampler_logps: G tensors (T_i,), or none where the policy itself sampled.
        scores: per name (`logps`, `entropies`, `ref_logps`) G tensors (T_i,); empty until the group was scored.
        recorded: what the sampler noted, or None.
        place: index in the rollout batch of all ranks; None outside one.
    """

    number: int
    prompt: dict[str, Any]
    prompt_ids: Tensor
    completion_ids: list[Tensor]
    rewards: Tensor
    total: Tensor
    truncated: Tensor
    completions: list[Any]
    verdicts: list[Any]
    sampler_logps: list[Tensor] | None = None
    scores: dict[str, list[Tensor]] = field(default_factory=dict)
    recorded: Recorded | None = None
    place: int | None = None

    @property
    def informative(self) -> bool:
        """Whether the verdicts, before any shaping, differ."""
        return bool(has_spread(self.rewards[:, 0], len(self.total))[0])

    @property
    def tokens(self) -> int:
        """Sampled tokens."""
        return sum(len(ids) for ids in self.completion_ids)

    @property
    def forwarded(self) -> int:
        """Tokens of a pass over all rows, each with its prompt."""
        return self.tokens + len(self.completion_ids) * len(self.prompt_ids)


def _cut(values: Tensor, lengths: Sequence[int], start: int) -> list[Tensor]:
    return [values[start + index, :length].cpu() for index, length in enumerate(lengths)]


def split(
    sampled: Sampled, rewards: Tensor, prompts: Sequence[dict[str, Any]], completions: Sequence[Any],
    verdicts: Sequence[Any], first: int,
) -> list[Group]:  # fmt: skip
    """The groups of what this rank has sampled.

    Args:
        sampled: B rows.
        rewards: (B, functions), this rank's.
        prompts: B rows of the data, each G times.
        completions: B texts or chats.
        verdicts: B, or none.
        first: number of the first group.
    """
    size, tokens = sampled.rollouts.group_size, sampled.tokens
    lengths = tokens.completion_mask.sum(dim=1).tolist()
    groups = []
    for start in range(0, len(lengths), size):
        rows, mine = slice(start, start + size), lengths[start : start + size]
        logps, heard = sampled.sampler_logps, sampled.recorded
        prompt_ids = tokens.prompt_ids[start][tokens.prompt_mask[start].bool()].cpu()
        groups.append(Group(
            first + start // size, dict(prompts[start]), prompt_ids,
            _cut(tokens.completion_ids, mine, start), rewards[rows].cpu(), sampled.rollouts.rewards[rows].cpu(),
            sampled.truncated[rows].cpu(), list(completions[rows]), list(verdicts[rows]),
            None if logps is None else _cut(logps, mine, start),
            recorded=None if heard is None else Recorded(heard.entropies[rows], heard.logps[rows]),
        ))  # fmt: skip
    return groups


def _padded(values: Sequence[Tensor], fill: float, device: torch.device, left: bool = False) -> Tensor:
    if not values:
        return torch.zeros((0, 1), device=device)
    side = "left" if left else "right"
    return pad_sequence(list(values), batch_first=True, padding_value=fill, padding_side=side).to(device)


def assemble(
    groups: Sequence[Group], size: int, pad: int, functions: int, device: torch.device
) -> tuple[Sampled, Tensor]:
    """Rows out of groups, padded anew, and their rewards (B, functions).

    Args:
        groups: of this rank, in the order of the batch; may be none.
        size: G.
        pad: the padding token.
        functions: how many rewards there are.
        device: of the model.
    """
    rows = [ids for group in groups for ids in group.completion_ids]
    prompts = [group.prompt_ids for group in groups for _ in range(size)]
    ids = _padded(rows, pad, device).long()
    tokens = Tokens(
        _padded(prompts, pad, device, left=True).long(),
        _padded([torch.ones_like(prompt) for prompt in prompts], 0, device, left=True).long(),
        ids,
        _padded([torch.ones_like(row) for row in rows], 0, device).long(),
    )
    rewards = torch.cat([group.rewards for group in groups] or [torch.zeros((0, functions))]).to(device)
    total = torch.cat([group.total for group in groups] or [torch.zeros(0)]).to(device)
    truncated = torch.cat([group.truncated for group in groups] or [torch.zeros(0, dtype=torch.bool)]).to(device)
    logps = [values for group in groups for values in group.sampler_logps or []]
    rollouts = Rollouts(total, total, rewards[:, 0], size, ids, tokens.completion_mask.bool())
    reported = _padded(logps, float("nan"), device) if logps else None
    numbers = [group.place * size + row for group in groups if group.place is not None for row in range(size)]
    numbered = torch.tensor(numbers, device=device) if len(numbers) == len(rows) and rows else None
    return Sampled(tokens, rollouts, truncated, reported, _recorded(groups), numbered), rewards


def _recorded(groups: Sequence[Group]) -> Recorded | None:
    """What was noted of all groups; None unless it was noted of each."""
    parts = [group.recorded for group in groups if group.recorded is not None]
    if not parts or len(parts) < len(groups):
        return None
    entropies = [values for part in parts for values in part.entropies]
    return Recorded(entropies, [values for part in parts for values in part.logps])


def keep_scores(groups: Sequence[Group], scores: Scores) -> None:
    """Note the numbers of the sampling policy in groups that are trained on later; rows in the order of the groups."""
    names = {"logps": scores.logps, "entropies": scores.entropies, "ref_logps": scores.ref_logps}
    row = 0
    for group in groups:
        lengths = [len(ids) for ids in group.completion_ids]
        group.scores = {name: _cut(values, lengths, row) for name, values in names.items() if values is not None}
        row += len(lengths)


def use_kept_scores(groups: Sequence[Group], scores: Scores) -> Scores:
    """The scores of a batch with those that were noted earlier in their rows."""
    known = [bool(group.scores) for group in groups for _ in group.completion_ids]
    if not any(known):
        return scores
    values = {"logps": scores.logps.clone(), "entropies": scores.entropies.clone()}
    if scores.ref_logps is not None:
        values["ref_logps"] = scores.ref_logps.clone()
    row = 0
    for group in groups:
        for index, ids in enumerate(group.completion_ids):
            for name, kept in group.scores.items():
                values[name][row + index, : len(ids)] = kept[index].to(values[name].device)
        row += len(group.completion_ids)
    scored = scores.scored | torch.tensor(known, device=scores.scored.device)
    return Scores(values["logps"], values["entropies"], values.get("ref_logps"), scored, scores.recorded)


def exchange(mine: Sequence[Group], destination: dict[int, int], ranks: Ranks) -> list[Group]:
    """Move groups to the ranks that train on them; only those that change their rank are sent.

    Args:
        mine: this rank's groups.
        destination: rank by number, for the groups of the batch; others stay where they are and are not returned.
        ranks: the processes.

    Returns:
        The groups of the batch that this rank trains on, in order.
    """
    leaving = [group for group in mine if destination.get(group.number, ranks.index) != ranks.index]
    here = [group for group in mine if destination.get(group.number) == ranks.index]
    for groups in everywhere(leaving):
        here += [group for group in groups if destination[group.number] == ranks.index]
    return sorted(here, key=lambda group: group.number)
