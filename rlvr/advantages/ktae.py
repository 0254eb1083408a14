"""KTAE: the rollout's advantage plus a value for each token (arXiv 2505.16826)."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from rlvr.advantages.base import Advantage
from rlvr.advantages.grpo import SCALES, grpo_advantages
from rlvr.errors import UserError
from rlvr.maths.ktae import KeyTokenRule, key_token_values
from rlvr.maths.rollouts import Rollouts
from rlvr.registry import variant


def ktae_advantages(
    token_ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    group_size: int,
    *,
    verdicts: Tensor | None = None,
    rollout_scale: str = "group",
    eps: float = 1e-6,
    all_rewards: Tensor | None = None,
    excluded_ids: Iterable[int] = (),
    **numbers: Any,
) -> Tensor:
    """Rollout advantage of GRPO plus key-token value, at every sampled token (arXiv 2505.16826, section 3).

    The two are added as they are: a wrong rollout's good tokens get more than its others. In a group without both right
    and wrong rollouts it is the plain rollout advantage.

    Args:
        token_ids: (B, T) integers, groups contiguous.
        mask: (B, T) bool, what was sampled, the end-of-text token included.
        rewards: (B,) what the rollout advantage is made of, shaping included; NaN where unscorable: the row gets 0.
        group_size: G.
        verdicts: (B,) unshaped verdicts, which split a group into correct (above 0) and wrong; None for `rewards`.
        rollout_scale: `group`, `batch` or `none`, as `scale` of `grpo_advantages`.
        eps: added to the standard deviation; 1e-6 in the released code.
        all_rewards: the rewards of every rank, for `rollout_scale=batch`; None for `rewards` alone.
        excluded_ids: tokens without a value of their own: the tokenizer's special ids.
        **numbers: scale, fisher, alpha, beta, gamma, top, ratio_eps and one_sided of `key_token_values`.

    Returns:
        (B, T) float32, 0 outside the mask.

    Raises:
        ValueError: as `key_token_values` and `grpo_advantages`.
    """
    split = rewards if verdicts is None else verdicts
    values = key_token_values(token_ids, mask, split, group_size, excluded_ids=excluded_ids, **numbers)
    rollout = grpo_advantages(rewards, group_size, rollout_scale, eps, all_rewards).unsqueeze(1)
    return (rollout + values).where(mask & rewards.isfinite().unsqueeze(1), 0.0)


@variant("advantage", "ktae")
@dataclass
class KTAE(KeyTokenRule, Advantage):
    """Chosen with `advantage=ktae`. The defaults are what the released code runs, computed exactly.

    The numbers of a token's value are those of `KeyTokenRule`.

    Attributes:
        special_ids: token ids without a value; null for the special ids of the tokenizer.
        rollout_scale: `group`, `batch` or `none`: whose standard deviation divides the rollout's advantage.
        eps: added to the standard deviation; 1e-6 in the released code.
    """

    splits_groups: ClassVar[bool] = True

    special_ids: list[int] | None = None
    rollout_scale: str = "group"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError as error:
            raise UserError(f"advantage.{error}") from None
        if self.rollout_scale not in SCALES:
            raise UserError(f"advantage.rollout_scale is {self.rollout_scale!r}; expected one of {', '.join(SCALES)}")
        if not 0 <= self.eps < float("inf"):
            raise UserError(f"advantage.eps is {self.eps}; expected 0 or a small positive number, e.g. 1e-6")
        if any(token < 0 for token in self.special_ids or []):
            raise UserError(f"advantage.special_ids is {self.special_ids}; expected token ids, at least 0, or null")

    def _numbers(self) -> dict[str, Any]:
        """The numbers of the rule, for `key_token_values`."""
        return {number.name: getattr(self, number.name) for number in fields(KeyTokenRule)}

    def _excluded(self, rollouts: Rollouts) -> Iterable[int]:
        found = rollouts.special_ids if self.special_ids is None else self.special_ids
        if found is None:
            raise UserError(
                "advantage.special_ids is null, and the rollouts do not name the tokenizer's special ids; "
                "set advantage.special_ids, e.g. [151643], or [] for none"
            )
        return found

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return ktae_advantages(
            rollouts.token_ids, rollouts.mask, rollouts.rewards, rollouts.group_size, verdicts=rollouts.verdicts,
            rollout_scale=self.rollout_scale, eps=self.eps, all_rewards=rollouts.all_rewards,
            excluded_ids=self._excluded(rollouts), **self._numbers(),
        )  # fmt: skip

    def token_values(self, rollouts: Rollouts) -> Tensor:
        """(B, T) key-token values, 0 where the group has not both right and wrong rollouts."""
        split = rollouts.rewards if rollouts.verdicts is None else rollouts.verdicts
        return key_token_values(
            rollouts.token_ids, rollouts.mask, split, rollouts.group_size, excluded_ids=self._excluded(rollouts),
            **self._numbers(),
        )  # fmt: skip
