"""Dynamic sampling (DAPO, arXiv 2503.14476 section 3.2): which of the groups sampled so far make the next batch."""

from dataclasses import dataclass

from rlvr.errors import UserError

SHORTFALLS = ("error", "fill")
SURPLUSES = ("drop", "carry")


@dataclass
class DynamicSection:
    """Sample until a rollout batch is full of groups whose verdicts differ; solved and unsolvable ones teach nothing.

    Attributes:
        max_rounds: rounds of sampling for one rollout batch, at most; 0 for no dynamic sampling.
        prompts: asked in a round; None for `rollouts.prompts`.
        short: when the rounds are used up: `error`, or `fill` the batch with groups whose verdicts are equal; they get
            credit only from other rewards, and none under `selection.candidates=informative`.
        surplus: groups beyond a full batch: `drop`, as the released code, or `carry` them into the next batch, with the
            log-probabilities of the policy that sampled them.
    """

    max_rounds: int = 0
    prompts: int | None = None
    short: str = "error"
    surplus: str = "drop"

    def __post_init__(self) -> None:
        if self.max_rounds < 0:
            raise UserError(f"rollouts.dynamic.max_rounds is {self.max_rounds}; expected 0 (off) or more, e.g. 10")
        if self.prompts is not None and self.prompts < 1:
            raise UserError(f"rollouts.dynamic.prompts is {self.prompts}; expected at least 1, or null")
        for name, allowed in (("short", SHORTFALLS), ("surplus", SURPLUSES)):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"rollouts.dynamic.{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}"
                )

    def check_reach(self, wanted: int) -> None:
        """Refuse rounds that cannot fill a rollout batch, whatever they sample.

        Args:
            wanted: groups in a batch, P.

        Raises:
            UserError: naming how many rounds it takes.
        """
        asked = self.prompts or wanted
        if 0 < self.max_rounds * asked < wanted:
            raise UserError(
                f"rollouts.dynamic.max_rounds is {self.max_rounds}, and a round asks {asked} prompts, but a rollout "
                f"batch has {wanted}; expected at least {-(-wanted // asked)} rounds: raise "
                "rollouts.dynamic.max_rounds or rollouts.dynamic.prompts"
            )


@dataclass(frozen=True)
class Choice:
    """What becomes of the groups of all ranks, by their order of sampling.

    Attributes:
        batch: the groups of the next batch, in order; fewer than wanted where more have to be sampled.
        surplus: informative groups beyond it, in order.
        missing: informative groups that a full batch still lacks.
    """

    batch: list[int]
    surplus: list[int]
    missing: int


def choose_groups(informative: dict[int, bool], wanted: int, fill: bool = False) -> Choice:
    """The first informative groups by their order of sampling, whichever rank sampled them.

    Args:
        informative: group number, in order of sampling -> whether its verdicts differ.
        wanted: groups in a batch, P.
        fill: make up for missing groups with the first ones that are not informative.
    """
    order = sorted(informative)
    good = [group for group in order if informative[group]]
    batch, missing = good[:wanted], max(0, wanted - len(good))
    if fill and missing:
        batch = sorted([*batch, *[group for group in order if not informative[group]][:missing]])
    return Choice(batch, good[wanted:], missing)
