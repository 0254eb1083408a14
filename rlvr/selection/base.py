"""What every selection has: its share, its scope, its candidates and its normaliser."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rlvr.errors import UserError
from rlvr.maths.denominators import NORMALIZERS
from rlvr.selection.select import SCOPES, TokenSelection, exact_share, kept_count, select_tokens

CANDIDATES = ("all", "informative")


@dataclass
class Selection:
    """Numbers shared by the rules; a subclass names the rule.

    Attributes:
        keep: share of candidate tokens that carry gradient, above 0 and at most 1.
        scope: `rollout` (one exact threshold over the whole rollout batch, all ranks), `group`, `sequence`: decided
            once from the sampling policy; `micro_batch` (the authors' released code) and `micro_batch_all_ranks`
            (TRL): decided inside the loss from the current policy.
        candidates: rows that vote: `all`, or `informative`, those of groups whose verdicts differ.
        normalizer: what the loss is divided by: `kept` tokens (arXiv 2506.01939v2, eq. 6), `all` tokens (v1 and TRL),
            or `released` (scope `micro_batch` only): per-slice kept mean, weighted by rows.
    """

    rule: ClassVar[str]
    keep: float = 1.0
    scope: str = "rollout"
    candidates: str = "all"
    normalizer: str = "kept"

    def __post_init__(self) -> None:
        try:
            exact_share(self.keep)
        except ValueError as error:
            raise UserError(str(error)) from None
        for name, known in (("scope", SCOPES), ("candidates", CANDIDATES), ("normalizer", NORMALIZERS)):
            if getattr(self, name) not in known:
                raise UserError(f"selection.{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if self.normalizer == "released" and self.scope != "micro_batch":
            raise UserError(
                f"selection.normalizer=released with selection.scope={self.scope}; the released code decides per "
                "micro-batch: set selection.scope=micro_batch"
            )

    @property
    def inside_loss(self) -> bool:
        """Whether the tokens are chosen in the gradient pass, from the current policy."""
        return self.scope.startswith("micro_batch")

    def kept_count(self, candidates: int) -> int:
        """How many of so many candidate tokens are kept."""
        return kept_count(self.rule, self.keep, candidates)

    def __call__(self, entropies: Tensor, mask: Tensor, **where: Any) -> TokenSelection:
        """Select by this rule; see `select_tokens` for shapes and the keywords in `where`."""
        return select_tokens(entropies, mask, keep=self.keep, rule=self.rule, scope=self.scope, **where)
