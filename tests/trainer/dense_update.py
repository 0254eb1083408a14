"""The oracle of the test of same updates: one dense pass over all rows, and the whole loss of an optimizer step.

It knows nothing of slices, packing, dropped rows or the sparse head: left-padded prompts, right-padded completions,
full logits, one backward pass. Written from the formulas of the papers, with sets and sorting where rows are chosen.
"""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from tests.selection.oracle import splitmix64
from tests.trainer.same_update import (
    EPSILON,
    EPSILON_HIGH,
    LENGTH_LIMIT,
    LOSS_TEMPERATURE,
    SAMPLER_CLIP,
    SEED,
    STEP,
    Batch,
    Case,
    Update,
    make_batch,
)  # fmt: skip
from tests.trainer.tiny import make_qwen3

Position = tuple[int, int]


class NearTieError(Exception):
    """Two entropies at a threshold that float32 cannot tell apart: the case says nothing."""


def credit_by_hand(case: Case, batch: Batch) -> Tensor:
    """(rows, T) advantages: (r - mean) / (std with n - 1 + 1e-4) of each group, or what is given."""
    if case.credit == "given":
        return batch["credit"].double()
    groups = batch["rewards"].double().view(-1, case.group)
    std = (groups - groups.mean(1, keepdim=True)).square().sum(1, keepdim=True).div(case.group - 1).sqrt()
    values = (groups - groups.mean(1, keepdim=True)) / (std + 1e-4)
    return values.reshape(-1, 1).expand(batch["completion_mask"].shape)


def take(case: Case, entropies: Tensor, pool: list[Position]) -> list[Position]:
    """What a rule keeps of one pool; ties to the lower (row, token)."""
    keep = Fraction(str(case.keep))
    if case.rule == "random":
        ordered = sorted(pool, key=lambda at: -splitmix64(SEED, STEP, *at))
    else:
        ordered = sorted(pool, key=lambda at: (-float(entropies[at]), at))
    if case.rule == "bottom":
        cut, kept = math.ceil((1 - keep) * len(pool)), ordered[math.ceil((1 - keep) * len(pool)) :]
    else:
        cut, kept = math.ceil(keep * len(pool)), ordered[: math.ceil(keep * len(pool))]
    decides = case.inside_loss and case.rule in ("top", "bottom") and 0 < cut < len(pool)
    if decides and float(entropies[ordered[cut - 1]] - entropies[ordered[cut]]) < 1e-5:
        raise NearTieError
    return kept


def step_of(case: Case, row: int) -> int:
    """The optimizer step of a global row."""
    return (row // case.group if case.window == "group" else row) % case.updates


def slices_by_hand(case: Case) -> dict[tuple[int, int], list[list[int]]]:
    """(step, index) -> the rows of each rank, in their own order."""
    found = {}
    for step, index in itertools.product(range(case.updates), range(case.accumulation)):
        ranks = [range(rank * case.rows, (rank + 1) * case.rows) for rank in range(case.ranks)]
        own = [[row for row in rows if step_of(case, row) == step] for rows in ranks]
        found[step, index] = [rows[index * case.micro : (index + 1) * case.micro] for rows in own]
    return found


def rows_of_pools(case: Case) -> list[list[int]]:
    """The rows that share a threshold."""
    every = list(range(case.ranks * case.rows))
    if case.scope == "micro_batch":
        return [rows for ranks in slices_by_hand(case).values() for rows in ranks]
    if case.scope == "micro_batch_all_ranks":
        return [list(itertools.chain(*ranks)) for ranks in slices_by_hand(case).values()]
    width = {"rollout": len(every), "group": case.group, "sequence": 1}[case.scope]
    return [every[start : start + width] for start in range(0, len(every), width)]


def masks(case: Case, batch: Batch, entropies: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, T) tokens that may carry loss, and the selected ones."""
    lossy = batch["completion_mask"].bool().clone()
    if case.mask_truncated:
        lossy[batch["truncated"]] = False
    votes = lossy.clone()
    if case.candidates == "informative":
        groups = batch["rewards"].view(-1, case.group)
        votes[(groups.amin(1) == groups.amax(1)).repeat_interleave(case.group)] = False
    votes &= sampler_by_hand(case, batch) > 0
    kept = torch.zeros_like(lossy)
    for rows in rows_of_pools(case):
        pool = [(row, token) for row in rows for token in range(case.tokens) if votes[row, token]]
        for at in take(case, entropies, pool) if case.rule != "all" else pool:
            kept[at] = True
    return lossy, kept


def sampler_by_hand(case: Case, batch: Batch) -> Tensor:
    """(rows, T) weights of the scored policy over the sampler, 0 above the bound; 1 without a separate sampler."""
    if not case.sampler:
        return torch.ones(batch["old"].shape, dtype=torch.float64)
    weights = torch.exp(batch["old"] - batch["sampler"])
    return torch.where(weights <= SAMPLER_CLIP, weights, 0.0).double()


class Dense:
    """The unplanned, dense computation of a case: float32 like the policy up to the logits, then float64.

    All of float64 would differ by the model's own rounding, which reaches 2e-5 in the gradient of a key.
    """

    def __init__(self, case: Case, batch: Batch, plain: Any, position_ids: Tensor | None = None) -> None:
        self.case, self.batch, self.plain = case, batch, plain
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        own = (mask.cumsum(dim=1) - 1).clamp(min=0)  # counted from the first real token
        positions = own if position_ids is None else position_ids
        output = plain(input_ids=ids, attention_mask=mask, position_ids=positions)
        logits = output.logits[:, case.prompt_tokens - 1 : -1].double()
        scaled = torch.log_softmax(logits / case.temperature, dim=-1)
        self.logps = scaled.gather(2, batch["completion_ids"].unsqueeze(2)).squeeze(2)
        self.entropies = -(scaled.exp() * scaled).sum(dim=2).detach()
        sharp = torch.log_softmax(logits / LOSS_TEMPERATURE, dim=-1)
        self.loss_entropies = -(sharp.exp() * sharp).sum(dim=2)

    def feed(self) -> None:
        """Record what the rollouts' policies said, near this policy, and settle what is settled before the loss."""
        case, batch = self.case, self.batch
        for name in ("old", "ref", "sampler"):
            against = batch["old"] if name == "sampler" else self.logps.detach()
            batch[name] = (against + batch[name]).float()
        self.weights, self.credit = sampler_by_hand(case, batch), credit_by_hand(case, batch)
        self.lossy, self.kept = masks(case, batch, self.entropies if case.inside_loss else batch["entropies"])
        if case.poisoned and not case.sampler:
            read = self.lossy if case.inside_loss else self.kept & (self.credit != 0)
            if case.beta:
                read = read | (self.lossy if case.kl_tokens == "all" else self.kept)
            batch["old"][~read] = -95.0

    def token_terms(self) -> tuple[Tensor, Tensor]:
        """(rows, T) losses of the tokens and KL terms, both before any mask."""
        case = self.case
        old = self.logps.detach() if case.on_policy else self.batch["old"].double()
        ratio = torch.exp(self.logps - old)
        low, high = 1 - EPSILON, 1 + EPSILON_HIGH
        loss = -torch.minimum(ratio * self.credit, ratio.clamp(low, high) * self.credit)
        if case.dual_clip is not None:
            bound = torch.minimum(loss, -case.dual_clip * self.credit)
            loss = torch.where(self.credit < 0, bound, loss)
        loss = self.loss_entropies if case.objective == "entropy" else loss
        away = self.batch["ref"].double() - self.logps
        return loss * self.weights, (torch.exp(away) - away - 1) * ratio

    def reduced(self, values: Tensor, acting: Tensor, counted: Tensor, step: int) -> Tensor:
        """A step's terms, divided by what the reduction says of the counted tokens."""
        case, rows = self.case, range(self.case.ranks * self.case.rows)
        here = torch.tensor([step_of(case, row) == step for row in rows]).unsqueeze(1)
        values = torch.where(acting & here, values, 0.0)
        lines = int((self.lossy & here).any(dim=1).sum())
        if case.reduction == "sequence_mean":
            values = values / counted.sum(dim=1, keepdim=True).clamp(min=1)
        share = float(counted.sum()) / max(float(self.lossy.sum()), 1.0)
        divisor = {
            "token_mean": float((counted & here).sum()),
            "token_mean_rollout": float(counted.sum()) / case.updates,
            "sequence_mean": lines,
            "sequence_sum": lines * share,
            "constant": lines * LENGTH_LIMIT * share,
        }[case.reduction]
        return values.sum() / divisor if divisor else values.sum() * 0.0

    def released(self, values: Tensor, step: int) -> Tensor:
        """Kept means of the slices, each weighted by its share of the step's rows."""
        total, everything = values.sum() * 0.0, self.case.ranks * self.case.rows / self.case.updates
        for (of_step, _), ranks in slices_by_hand(self.case).items():
            for rows in ranks if of_step == step else []:
                chosen = values[rows][self.kept[rows]]
                total = total + (chosen.mean() * len(rows) / everything if len(chosen) else 0.0)
        return total

    def step_loss(self, step: int, size: bool = False) -> Tensor:
        """The loss of an optimizer step; with `size`, the sum of its terms' absolute values instead."""
        case, (terms, kl) = self.case, self.token_terms()
        terms, kl = (terms.abs(), kl.abs()) if size else (terms, kl)
        counted = self.lossy if case.normalizer == "all" else self.kept
        loss = (
            self.released(terms, step)
            if case.normalizer == "released"
            else self.reduced(terms, self.kept, counted, step)
        )
        if case.beta:
            acting = self.lossy if case.kl_tokens == "all" else self.kept
            loss = loss + case.beta * self.reduced(kl, acting, acting, step)
        return loss

    def update(self, step: int) -> Update:
        """The loss of a step and its gradient."""
        names, weights = zip(*self.plain.named_parameters(), strict=True)
        loss = self.step_loss(step)
        gradient = torch.autograd.grad(loss, weights, retain_graph=True)
        return float(loss.detach()), {name: values.double() for name, values in zip(names, gradient, strict=True)}


@cache
def models(name: str, vocabulary: int, tied: bool, temperature: float) -> tuple[Any, Any]:
    """A tiny policy in float32 with TRL's fused head, as `GRPOTrainer` adds it, and the same weights without."""
    plain = make_qwen3(vocabulary, tied) if name == "qwen3" else make_gpt2(vocabulary, tied)
    policy = type(plain)(plain.config)
    policy.load_state_dict(plain.state_dict())
    add_fused_lm_head(policy, temperature=temperature, outputs=("log_probs", "entropy"))
    return policy, plain


def make_gpt2(vocabulary: int, tied: bool) -> Any:
    """A GPT-2 of a few thousand random weights: its positions are learned and absolute."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary, tie_word_embeddings=tied, n_embd=16, n_layer=2, n_head=2, n_positions=32,
        initializer_range=0.3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def prepared(case: Case) -> tuple[Case, Dense, Any]:
    """The case, or its like where entropies nearly tie; the oracle; the policy. The oracle's batch feeds both sides."""
    while True:
        policy, plain = models(case.model, case.vocabulary, case.tied, case.temperature)
        dense = Dense(case, make_batch(case), plain)
        try:
            dense.feed()
        except NearTieError:
            case = replace(case, seed=case.seed + 100_000)
        else:
            return case, dense, policy
