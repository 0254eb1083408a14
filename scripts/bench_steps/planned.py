"""What is compared: the settings of a benchmark, the rollouts that are injected, and one run as a job."""

import math
import random
from dataclasses import dataclass, field, replace

from scripts.bench_steps.shapes import SHAPES, Shape

EOS = 1
FIRST_WORD = 2
PROMPT_TOKENS = (20, 60)
"""The shortest and the longest prompt."""

PADDING, HEAD, GPU_HEAD = "padding", "head", "gpu head"
SWITCHES = {
    PADDING: "ours pads every row to the longest prompt and completion, in slices of equally many unsorted rows",
    HEAD: "ours projects every forwarded position, as TRL does on a CPU",
    GPU_HEAD: "TRL projects completion tokens only, as it does on a GPU",
}
"""What a run can do without, and what that means."""


@dataclass(frozen=True)
class Setting:
    """Model, rollouts and machine of a run.

    Attributes:
        shape: the model.
        completions: rows in the optimizer step, P * G.
        group: G.
        median: of the log-normal lengths of the completions, in tokens.
        sigma: standard deviation of their logarithm.
        cut: the longest completion, in tokens; longer ones lose their end-of-text token.
        device: `cpu` or `cuda`.
        dtype: of the weights, as torch names it; on a GPU TRL's autocast is bf16 where this is.
        threads: of torch on a CPU.
        checkpointing: whether activations are recomputed, in both trainers.
        optim: the optimizer as transformers names it.
        warmup_steps: whole optimizer steps before the measured one.
        seed: of the rollouts.
    """

    shape: Shape = SHAPES["small"]
    completions: int = 64
    group: int = 8
    median: int = 120
    sigma: float = 0.8
    cut: int = 512
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 2
    checkpointing: bool = False
    optim: str = "adamw_torch"
    warmup_steps: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """One run: one trainer, one optimizer step.

    Attributes:
        trainer: `trl` or `ours`.
        setting: model, rollouts, machine.
        rows: `per_device_train_batch_size`.
        degenerate: share of the groups that are solved or unsolvable.
        keep: share of the tokens that carry gradient.
        recorded: file with entropies recorded while sampling; None for none.
        switched_off: what is switched off for comparison, of `rlvr` or in `trl`: see `SWITCHES`.
    """

    trainer: str
    setting: Setting
    rows: int = 8
    degenerate: float = 0.0
    keep: float = 0.2
    recorded: str | None = None
    switched_off: tuple[str, ...] = field(default=())

    def with_setting(self, **changes: object) -> "Job":
        """The same run of another model, other rollouts or another machine."""
        return replace(self, setting=replace(self.setting, **changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Planned:
    """Rollouts as token ids, groups contiguous, and their rewards.

    Attributes:
        prompt_ids: B lists.
        completion_ids: B lists.
        rewards: B numbers, 0 or 1.
    """

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    rewards: list[float]

    @property
    def tokens(self) -> int:
        """Completion tokens of all rows."""
        return sum(map(len, self.completion_ids))


def completion_lengths(setting: Setting) -> list[int]:
    """B log-normal lengths in tokens, between 1 and the cut."""
    draw = random.Random(setting.seed)
    drawn = [draw.lognormvariate(math.log(setting.median), setting.sigma) for _ in range(setting.completions)]
    return [min(max(round(length), 1), setting.cut) for length in drawn]


def planned_rewards(groups: int, group: int, degenerate: float) -> list[float]:
    """0/1 rewards, in each group from one right to one wrong, but for a share of the groups, evenly spread.

    Degenerate groups are in turn all wrong and all right.
    """
    rewards: list[float] = []
    for index in range(groups):
        before, after = math.floor(index * degenerate), math.floor((index + 1) * degenerate)
        right = group * (before % 2) if after > before else 1 + index % (group - 1)
        rewards += [1.0] * right + [0.0] * (group - right)
    return rewards


def plan_rollouts(setting: Setting, degenerate: float) -> Planned:
    """The same rollouts for the same setting; only rewards depend on the share of degenerate groups."""
    draw, groups = random.Random(setting.seed + 1), setting.completions // setting.group

    def words(count: int) -> list[int]:
        return [draw.randrange(FIRST_WORD, setting.shape.vocabulary) for _ in range(count)]

    prompts = [words(draw.randint(*PROMPT_TOKENS)) for _ in range(groups)]
    lengths = completion_lengths(setting)
    completions = [words(length - (length < setting.cut)) + [EOS] * (length < setting.cut) for length in lengths]
    return Planned(
        [list(prompts[row // setting.group]) for row in range(setting.completions)],
        completions,
        planned_rewards(groups, setting.group, degenerate),
    )
