"""Worked solutions of arithmetic problems: one adjacent pair at a time, `7+4*2=` -> `7+8=15\\boxed{15}<|endoftext|>`.

Which pair goes next is a genuine fork; everything else follows from it. Solutions in random order often break
precedence, and a policy trained on them is what reinforcement learning can teach precedence from verdicts alone.
"""

import random

from rlvr.data.expressions import parse, reduce_pair, render, right_pair

END_OF_TEXT = "<|endoftext|>"


def demonstrate(prompt: str, rng: random.Random | None = None) -> str:
    """Solve a problem in writing.

    Args:
        prompt: e.g. `7+4*2=`.
        rng: picks the next pair, each with the same chance; None follows the rules of arithmetic.

    Returns:
        What follows the prompt: the rewritten expressions joined by `=`, then the box and the end-of-text token.

    Raises:
        ValueError: if the prompt is no expression, or has only one number.
    """
    expression = parse(prompt)
    if not expression[1]:
        raise ValueError(f"{prompt!r} has nothing to reduce; expected at least two numbers")
    lines: list[str] = []
    while expression[1]:
        pair = right_pair(expression) if rng is None else rng.randrange(len(expression[1]))
        expression = reduce_pair(expression, pair)
        lines.append(render(expression))
    return "=".join(lines) + f"\\boxed{{{lines[-1]}}}" + END_OF_TEXT
