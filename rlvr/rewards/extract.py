"""Find the final answer in a completion."""

import re
from dataclasses import dataclass

from rlvr.rewards.policy import DEFAULT, Policy

# A box, then braces that only print, then braces that group. `\\` is a line break, unless someone escaped a box twice.
_PIECES = re.compile(r"(?P<box>\\boxed\s*\{)|\\\\(?!boxed)|\\[{}]|(?P<opens>\{)|(?P<closes>\})")


@dataclass(frozen=True)
class Extraction:
    """The answer of a completion, or why there is none.

    Attributes:
        text: the answer; None where there is none.
        status: empty where an answer was found; else the verdict: `no_answer`, `wrong` or `unparseable`.
        reason: one line on why.
    """

    text: str | None
    status: str = ""
    reason: str = ""


def extract(completion: str, policy: Policy = DEFAULT) -> Extraction:
    """The final answer of a completion, by the rules of `policy`."""
    text = last_boxed(completion)
    if text is None:
        return Extraction(None, "no_answer", "")
    return Extraction(text) if text else Extraction(text, "unparseable", "the box is empty")


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{...}` whose braces balance, without surrounding blanks; None if there is none.

    A box that never closes is passed over for the one before it. Of nested boxes the inner one opens last and counts.
    One pass over the text, so a completion of nothing but opening boxes costs no more than another.
    """
    open_groups: list[int | None] = []  # where a box's content starts; None for any other group
    last: tuple[int, int] | None = None
    for piece in _PIECES.finditer(text):
        if piece.lastgroup == "box":
            open_groups.append(piece.end())
        elif piece.lastgroup == "opens":
            open_groups.append(None)
        elif piece.lastgroup == "closes" and open_groups:
            start = open_groups.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, piece.start())
    return None if last is None else text[last[0] : last[1]].strip()
