"""Find the final answer in a completion. Standard library only; linear in the length of the text."""

import re
from dataclasses import dataclass

from rlvr.rewards.policy import DEFAULT, Policy

# A box, then braces that only print, then braces that group. `\\` is a line break, unless someone escaped a box twice.
_PIECES = re.compile(r"(?P<box>\\boxed\s*\{)|\\\\(?!boxed)|\\[{}]|(?P<opens>\{)|(?P<closes>\})")
# What may stand between boxes that are one answer.
_JOINT = re.compile(r"(?:\\text\s*\{\s*)?(?:and|or|then)?\s*\}?", re.IGNORECASE)
_MARKS = str.maketrans("", "", " \t\r\n$.,;:*~_|\\()[]&")
_ANSWER_LINE = re.compile(r"(?:\banswer\s*(?:is|:|=)|####)[ \t:*]*", re.IGNORECASE)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|-?\.\d+", re.ASCII)
_CONTROL = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")

NOT_CLOSED = "the thinking does not end"
NO_THINKING = "no </think>"
NO_BOX = "no box"
NO_LINE = "no line with the answer"
NO_NUMBER = "no number"
EMPTY = "the box is empty"
TOO_LONG = "too long"
CONTROL = "control characters"


@dataclass(frozen=True)
class Extraction:
    """The answer of a completion, or why there is none.

    Attributes:
        text: the answer; None where there is none.
        status: empty where an answer was found; else the verdict: `no_answer`, `wrong` or `unparseable`.
        reason: why, in a few fixed words that can be counted.
    """

    text: str | None
    status: str = ""
    reason: str = ""


@dataclass(frozen=True)
class _Box:
    start: int  # of the command
    inside: int  # where its content starts
    end: int  # of its content


def extract(completion: str, policy: Policy = DEFAULT) -> Extraction:
    r"""The final answer of a completion, by the rules of `policy`.

    Of `\boxed{...}` the last one that closes counts, together with those before it that only punctuation, `or` or
    `and` parts from it: `\boxed{1} or \boxed{7}` is one answer with alternatives.
    """
    if policy.think != "ignore":
        _, tag, after = completion.rpartition("</think>")
        if not tag and policy.think == "required":
            return Extraction(None, "no_answer", NO_THINKING)
        if "<think>" in after:
            return Extraction(None, "no_answer", NOT_CLOSED)
        completion = after
    if policy.extract == "last_number":
        found = _last_number(completion)
        return _checked(found, policy) if found is not None else Extraction(None, "no_answer", NO_NUMBER)
    if policy.extract == "answer_line":
        line = _answer_line(completion)
        if line is None:
            return Extraction(None, "no_answer", NO_LINE)
        completion = line if "\\boxed" in line else f"\\boxed{{{line}}}"
    answers = _last_answers(completion)
    if not answers:
        return Extraction(None, "no_answer", NO_BOX)
    return _checked(answers[0] if len(answers) == 1 else r" \text{ or } ".join(answers), policy)


def _checked(text: str, policy: Policy) -> Extraction:
    if not text.strip("\0\u200b\u200c\u200d\u2060\ufeff \t\n"):
        return Extraction(text, "unparseable", EMPTY)
    if len(text) > policy.longest:
        return Extraction(text, "wrong", TOO_LONG)
    return Extraction(text, "wrong", CONTROL) if _CONTROL.search(text) else Extraction(text)


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{...}` whose braces balance, without surrounding blanks; None if there is none.

    A box that never closes is passed over for the one before it. Of nested boxes the inner one opens last and counts.
    One pass over the text, so a completion of nothing but opening boxes costs no more than another.
    """
    boxes = _boxes(text)
    return text[boxes[-1].inside : boxes[-1].end].strip() if boxes else None


def _boxes(text: str) -> list[_Box]:
    """The boxes that close, in the order in which they open."""
    open_groups: list[tuple[int, int] | None] = []  # command and content of a box; None for any other group
    found: list[_Box] = []
    for piece in _PIECES.finditer(text, max(0, text.find("\\boxed"))):
        if piece.lastgroup == "box":
            open_groups.append(piece.span())
        elif piece.lastgroup == "opens":
            open_groups.append(None)
        elif piece.lastgroup == "closes" and open_groups:
            start = open_groups.pop()
            if start is not None:
                found.append(_Box(start[0], start[1], piece.start()))
    return sorted(found, key=lambda box: box.start)


def _last_answers(text: str) -> list[str]:
    """The last box, and the boxes before it that belong to the same answer; each different content once."""
    boxes = _boxes(text)
    answers: dict[str, str] = {}
    left = len(text)
    joined = False
    while boxes:
        box = boxes.pop()
        if joined and (box.end >= left or not _joins(text[box.end + 1 : left])):
            if box.end >= left:  # this one contains the one just read
                left = box.start
                continue
            break
        content = text[box.inside : box.end].strip()
        answers.setdefault("".join(content.split()), content)
        left, joined = box.start, True
    return list(reversed(answers.values()))


def _joins(between: str) -> bool:
    if len(between) > 60:
        return False
    rest = between.replace("\\text", "").replace("\\quad", "").translate(_MARKS)
    return _JOINT.fullmatch(rest.strip("{}")) is not None


def _answer_line(text: str) -> str | None:
    ends = [found.end() for found in _ANSWER_LINE.finditer(text)]
    if not ends:
        return None
    line = text[ends[-1] :].lstrip().partition("\n")[0]
    return line.strip().strip("*").strip().rstrip(".")


def _last_number(text: str) -> str | None:
    found = _NUMBER.findall(text)
    return found[-1] if found else None
