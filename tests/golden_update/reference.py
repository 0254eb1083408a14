"""One optimizer step after another in float64, with loops and the model's own logits: no TRL, nothing of the package.

Slow and plain on purpose. What it says is what the trainer has to do on any number of ranks and slices.
"""

import math
from fractions import Fraction
from typing import Any

import torch

P, G, T, PROMPT, VOCABULARY = 4, 4, 8, 5, 23
LEARNING_RATE = 0.1


def group_advantages(rewards: list[float]) -> list[float]:
    """(r - mean) / (std with n - 1 + 1e-4), 0 in a group of equal rewards."""
    advantages = []
    for start in range(0, len(rewards), G):
        group = rewards[start : start + G]
        mean = sum(group) / G
        std = math.sqrt(sum((reward - mean) ** 2 for reward in group) / (G - 1))
        advantages += [0.0 if max(group) == min(group) else (reward - mean) / (std + 1e-4) for reward in group]
    return advantages


def select(entropies: Any, votes: list[tuple[int, int]], keep: float) -> set[tuple[int, int]]:
    """The ceil(keep N) positions with the highest entropy; ties to the lower (row, token)."""
    count = math.ceil(Fraction(str(keep)) * len(votes))
    return set(sorted(votes, key=lambda at: (-float(entropies[at]), at))[:count])


def model_logps(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """(rows, T) log-probabilities from full float64 logits, row by row, without any padding."""
    rows = []
    for row in range(P * G):
        prompt = [int(i) for i, m in zip(batch["prompt_ids"][row], batch["prompt_mask"][row], strict=True) if m]
        answer = [int(i) for i, m in zip(batch["completion_ids"][row], batch["completion_mask"][row], strict=True) if m]
        values = torch.zeros(T, dtype=torch.float64)
        if answer:
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
            logps = torch.log_softmax(logits, dim=-1)
            picked = [logps[len(prompt) + t - 1, token] for t, token in enumerate(answer)]
            values = torch.cat([torch.stack(picked), values[len(answer) :]])
        rows.append(values)
    return torch.stack(rows)


def model_entropies(model: Any, batch: dict[str, Any], temperature: float) -> torch.Tensor:
    """(rows, T) -sum p ln p of the distribution that each completion token was drawn from, at a temperature."""
    rows = []
    for row in range(P * G):
        prompt = [int(i) for i, m in zip(batch["prompt_ids"][row], batch["prompt_mask"][row], strict=True) if m]
        answer = [int(i) for i, m in zip(batch["completion_ids"][row], batch["completion_mask"][row], strict=True) if m]
        values = [torch.zeros((), dtype=torch.float64)] * T
        if answer:
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
            for t in range(len(answer)):
                probs = torch.softmax(logits[len(prompt) + t - 1] / temperature, dim=-1)
                values[t] = -(probs * torch.log(probs)).sum()
        rows.append(torch.stack(values))
    return torch.stack(rows)


def token_loss(scenario: dict[str, Any], ratio: torch.Tensor, advantage: float) -> torch.Tensor:
    """-min(rho A, clip(rho) A), with the dual clip's bound for A < 0."""
    low, high = 1 - scenario["epsilon"], 1 + scenario["epsilon_high"]
    loss = -torch.minimum(ratio * advantage, torch.clamp(ratio, low, high) * advantage)
    if advantage < 0 and scenario["dual_clip"] is not None:
        loss = torch.minimum(loss, torch.tensor(-scenario["dual_clip"] * advantage, dtype=torch.float64))
    return loss


def divide(scenario: dict[str, Any], terms: dict[tuple[int, int], torch.Tensor], counted: set, rollout: dict) -> Any:
    """The reduction of one step: `terms` by position, `counted` positions of the denominator."""
    zero = torch.zeros((), dtype=torch.float64)
    reduction, step_rows = scenario["reduction"], rollout["step_rows"]
    if reduction == "sequence_mean":
        total = zero
        for row in step_rows:
            own = [value for at, value in terms.items() if at[0] == row]
            number = sum(1 for at in counted if at[0] == row)
            total = total + (sum(own, zero) / number if number else zero)
        return total / len(step_rows) if step_rows else zero
    total = sum(terms.values(), zero)
    if reduction == "sequence_sum":
        divisor = len(step_rows) * rollout["counted"] / rollout["tokens"]
    elif reduction == "token_mean":
        divisor = len(counted)
    elif reduction == "token_mean_rollout":
        divisor = rollout["counted"] / scenario["updates"]
    else:
        divisor = len(step_rows) * T * rollout["counted"] / rollout["tokens"]
    return total / divisor if divisor else zero


def step_loss(model: Any, batch: dict[str, Any], scenario: dict[str, Any], step: int) -> torch.Tensor:
    """The loss of optimizer step `step` of the rollout batch, all rows of all ranks."""
    rewards = [float(reward) for reward in batch[scenario["rewards"]]]
    advantages = group_advantages(rewards)
    informative = [len(set(rewards[row // G * G : row // G * G + G])) > 1 for row in range(P * G)]
    lossy = {
        (row, t)
        for row in range(P * G)
        for t in range(T)
        if batch["completion_mask"][row, t] and not (scenario["mask_truncated"] and batch["truncated"][row])
    }
    votes = sorted(at for at in lossy if informative[at[0]] or scenario["candidates"] == "all")
    kept = select(batch["entropies"], votes, scenario["keep"])
    counted_everywhere = kept if scenario["normalizer"] == "kept" else lossy
    mine = {row for row in range(P * G) if (row // G) % scenario["updates"] == step}
    rollout = {
        "step_rows": sorted({row for row, _ in lossy if row in mine}),
        "counted": len(counted_everywhere),
        "tokens": len(lossy),
    }
    logps = model_logps(model, batch)
    by_entropy = scenario["objective"] == "entropy"
    entropies = model_entropies(model, batch, scenario["temperature"]) if by_entropy else None
    terms, divergences = {}, {}
    for at in sorted(lossy):
        if at[0] not in mine:
            continue
        ratio = torch.exp(
            logps[at] - (logps[at].detach() if scenario["on_policy"] else float(batch[scenario["old"]][at]))
        )
        if at in kept:
            terms[at] = entropies[at] if by_entropy else token_loss(scenario, ratio, advantages[at[0]])
        if scenario["beta"]:
            difference = float(batch["ref_logps"][at]) - logps[at]
            divergences[at] = (torch.exp(difference) - difference - 1) * ratio
    in_step = {at for at in counted_everywhere if at[0] in mine}
    loss = divide(scenario, terms, in_step, rollout)
    if scenario["beta"]:
        everything = {**rollout, "counted": len(lossy)}
        loss = loss + scenario["beta"] * divide(
            scenario, divergences, {at for at in lossy if at[0] in mine}, everything
        )
    return loss


def train(model: Any, batch: dict[str, Any], scenario: dict[str, Any]) -> tuple[list[float], list[dict[str, Any]]]:
    """Losses, and weights after each step of plain gradient descent through the rollout batch."""
    losses, weights = [], []
    for step in range(scenario["updates"] * scenario["iterations"]):
        model.zero_grad()
        loss = step_loss(model, batch, scenario, step % scenario["updates"])
        losses.append(float(loss.detach()))
        if loss.requires_grad:
            loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= LEARNING_RATE * parameter.grad
        weights.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
    return losses, weights
