"""Time `rlvr.grade_many` against TRL's `accuracy_reward` on the same completions, in one run.

    python -m scripts.bench_grader                 integers, LaTeX, and a batch of which a tenth is hostile
    python -m scripts.bench_grader --only latex    one of the three

Golds go to TRL in `$...$`, because it misreads bare ones. Both are warm: libraries loaded, workers started, nothing in
the cache. They take turns, so that a change of the machine's load meets both. A batch with hostile answers takes TRL
many minutes: each kind of answer is timed once there, and the sum is extrapolated from that.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rlvr.rewards import grade as grading
from rlvr.rewards.verdict import Verdict

HOSTILE = {
    "tower": "9^{9^{9^{9}}}",
    "power": "2^{2^{35}}",
    "digits": "9^{99999999}",
    "factorial": "99999999!",
    "fractions": r"\frac{1}{" * 56 + "2" + "}" * 56,
    "brackets": "(" * 240 + "x" + ")" * 240,
    "expansion": "(1+x)^{100000}",
    "sum": r"\sum_{k=1}^{10^{9}} \frac{1}{k^k}",
    "set": r"\{" + ",".join(str(number) for number in range(120)) + r"\}",
    "roots": r"\sqrt{" * 60 + "2" + "}" * 60,
}


@dataclass(frozen=True)
class Batch:
    """Completions with their golds; `hostile` names the kind of those that are."""

    completions: list[str]
    golds: list[str]
    hostile: list[str]


def _wrapped(answer: str, chance: random.Random) -> str:
    steps = " ".join(f"Step {n}: so we get {chance.randrange(1000)}." for n in range(20))
    return f"Let me think. {steps} The answer is $\\boxed{{{answer}}}$."


def integers(count: int, chance: random.Random) -> Batch:
    """Integer golds; half of the answers are right."""
    golds = [str(chance.randrange(-999, 100_000)) for _ in range(count)]
    answers = [gold if chance.random() < 0.5 else str(int(gold) + chance.randrange(1, 9)) for gold in golds]
    return Batch([_wrapped(answer, chance) for answer in answers], golds, [""] * count)


def _pair(chance: random.Random) -> tuple[str, str, str]:
    """A gold, an equal answer written in another way, and another answer."""
    a, b, c = (chance.randrange(2, 60) for _ in range(3))
    return chance.choice([
        (rf"\frac{{{a}}}{{{b}}}\pi", rf"\dfrac{{{2 * a}\pi}}{{{2 * b}}}", rf"\frac{{{a + 1}\pi}}{{{b}}}"),
        (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"\sqrt{{{a * a * b + 1}}}"),
        (f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})", f"(x+{a})(x+{b + 1})"),
        (rf"({a}, \frac{{{b}}}{{{c}}})", rf"\left({a},\frac{{{3 * b}}}{{{3 * c}}}\right)", rf"({a},{b})"),
        (rf"[{-a}, {b})", rf"\left[-{a},{b}\right)", rf"[{-a}, {b}]"),
        (rf"\frac{{\sqrt{{{a}}}+{b}}}{{{c}}}", rf"\frac{{{b}}}{{{c}}}+\frac{{\sqrt{{{a}}}}}{{{c}}}", rf"\sqrt{{{a}}}"),
        (f"{a}^{{{b}}}+x", f"x+{a}^{{{b}}}", f"x+{a}^{{{b + 1}}}"),
        (rf"\{{{a},{a + b}\}}", rf"\{{{a + b},{a}\}}", rf"\{{{a},{a + b},{c + 200}\}}"),
    ])  # fmt: skip


def latex(count: int, chance: random.Random) -> Batch:
    """Formulas, no two alike; half of the answers are right and written otherwise than the gold."""
    completions, golds = [], []
    for _ in range(count):
        gold, equal, other = _pair(chance)
        completions.append(_wrapped(equal if chance.random() < 0.5 else other, chance))
        golds.append(gold)
    return Batch(completions, golds, [""] * count)


def hostile(count: int, chance: random.Random) -> Batch:
    """Formulas, every tenth answer replaced by one that is made to take for ever."""
    batch = latex(count, chance)
    kinds = list(HOSTILE)
    chosen = [kinds[index // 10 % len(kinds)] if index % 10 == 0 else "" for index in range(count)]
    completions = [
        _wrapped(HOSTILE[kind], chance) if kind else completion
        for kind, completion in zip(chosen, batch.completions, strict=True)
    ]
    return Batch(completions, batch.golds, chosen)


def ours(batch: Batch, workers: int) -> list[Verdict]:
    """`grade_many` with nothing known from before."""
    grading.KNOWN.clear()
    return grading.grade_many(batch.completions, batch.golds, workers=workers)


def trls(completions: list[str], golds: list[str]) -> list[float | None]:
    """TRL's `accuracy_reward`."""
    from trl.rewards import accuracy_reward

    chats = [[{"role": "assistant", "content": completion}] for completion in completions]
    return accuracy_reward(chats, [f"${gold}$" for gold in golds])


def timed(call: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(name: str, batch: Batch, workers: int, repeats: int) -> float:
    """Time both in turn and print a line; the ratio of the medians."""
    mine, theirs = [], []
    for _ in range(repeats):
        mine.append(timed(lambda: ours(batch, workers)))
        theirs.append(timed(lambda: trls(batch.completions, batch.golds)))
    ratio = statistics.median(theirs) / statistics.median(mine)
    right = sum(verdict.correct for verdict in ours(batch, workers))
    agreed = sum(value == 1.0 for value in trls(batch.completions, batch.golds))
    rows = len(batch.golds)
    both = " ".join(f"{statistics.median(spent) / rows * 1e3:>9.3f} ms" for spent in (mine, theirs))
    print(f"{name:>9} {rows:>6} {both} {ratio:>8.1f}x   right: {right} by us, {agreed} by TRL")
    return ratio


def compare_hostile(batch: Batch, workers: int, benign_seconds: float) -> float:
    """Time the whole batch here; TRL on one answer of each kind, and extrapolate. Our seconds."""
    seconds = timed(lambda: ours(batch, workers))
    kinds: dict[str, float] = {}
    for kind, completion, gold in zip(batch.hostile, batch.completions, batch.golds, strict=True):
        if kind and kind not in kinds:
            kinds[kind] = timed(lambda completion=completion, gold=gold: trls([completion], [gold]))  # type: ignore[misc]
    extrapolated = sum(kinds[kind] if kind else benign_seconds for kind in batch.hostile)
    print(
        f"  hostile {len(batch.golds):>6}   {seconds:.1f} s; TRL about {extrapolated / 60:.1f} min, extrapolated from"
    )
    print("          " + ", ".join(f"{kind} {spent:.1f} s" for kind, spent in kinds.items()))
    return seconds


def main() -> None:
    """Print a line for each kind of batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["integers", "latex", "hostile"])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    warm = latex(8, random.Random(1))
    ours(warm, arguments.workers)
    trls(warm.completions, warm.golds)
    print(f"    batch   rows   a verdict, ours ({arguments.workers} workers) and TRL's")
    for name, make in (("integers", integers), ("latex", latex)):
        if arguments.only in (None, name):
            compare(name, make(arguments.rows, random.Random(0)), arguments.workers, arguments.repeats)
    if arguments.only in (None, "hostile"):
        benign = timed(lambda: trls(warm.completions, warm.golds)) / len(warm.golds)
        compare_hostile(hostile(arguments.rows, random.Random(0)), arguments.workers, benign)


if __name__ == "__main__":
    main()
