"""Compare two answers by their shapes; what a single formula is worth is left to a comparer of formulas."""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from rlvr.rewards.normalise import compact
from rlvr.rewards.screen import CHAIN, EQUATION, SEVERAL
from rlvr.rewards.structure import Node, shape

_NAME = re.compile(
    r"(?:\\text\{[A-Za-z .,'-]*\}|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega|angle"
    r"|triangle|overline|widehat|ell|Delta|Omega|Phi|Theta|sin|cos|tan|max|min|arg|Re|Im|log|ln|cot|deg|dot|ddot"
    r"|mathbb|vec|hat|bar|odot|square|perp|parallel|mho)(?![a-zA-Z])|\\frac\{d[^{}]{0,12}\}\{d[^{}]{0,12}\}"
    r"|[A-Za-z]|_\s*(?:\d|(?>\{\s*[\\A-Za-z0-9{},\s+-]*\}))|[(){}\[\]|,'\s+-]"
    r"|(?<=[A-Za-z]\()\d+(?=\))|(?<=,)\d+(?=[,)])|^10+(?=[A-Za-z]\s*\+))+",
    re.ASCII,
)
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_ORDER = ("<", "<=", ">", ">=")
_MOST = 256


class Wrong(Exception):
    """The answer is wrong for a reason worth naming."""


class Formulas(Protocol):
    """Compares single formulas, given as normalised texts."""

    def same(self, gold: str, mine: str) -> bool:
        """Whether two formulas have the same value."""

    def near(self, one: str, other: str) -> bool:
        """Whether one formula is a rounding of the other."""

    def same_relation(self, gold: Sequence[str], mine: Sequence[str], positive: bool) -> bool:
        """Whether `a = b` and `c = d` say the same: a - b is a constant times c - d; a positive one for `<`."""


def name_of(node: Node) -> str | None:
    """The name that a left-hand side is: `x`, `f(x)`, `m+n`, `\\angle ABC`, `\\text{Area}`; None for a formula."""
    text = node.text
    if (
        len(text) > 60
        or text[:1] in ("-", "+")
        or not _NAME.fullmatch(text)
        or not any(sign.isalpha() for sign in text)
    ):
        return None
    plain = re.sub(r"\\(?:text|mathrm|left|right)(?![a-z])|[{}\s\\]", "", text)
    return None if plain in ("e", "i", "pi") else plain


def same(gold: Node, mine: Node, formulas: Formulas) -> bool:
    """Whether an answer is the gold answer.

    Raises:
        Wrong: with the reason, where there is one to name.
    """
    if compact(gold.text) == compact(mine.text):
        return True
    mine = _without_approximation(gold, mine, formulas)
    gold_name, gold_value = _assigned(gold)
    name, value = _assigned(_unchained(gold, mine, formulas))
    if gold.kind == "relation" and mine.kind == "relation" and _same_relation(gold, mine, formulas):
        return True
    if gold_name and name and gold_name != name:
        return False
    if value.kind == "relation":
        return _only_relation(gold_value, value, formulas)
    if gold_value.kind == "relation":
        return False
    return _same_shape(gold_value, value, formulas)


def _only_relation(gold: Node, mine: Node, formulas: Formulas) -> bool:
    if gold.kind == "relation":
        return len(gold.items) == len(mine.items) and gold.sign == mine.sign and all(
            same(left, right, formulas) for left, right in zip(gold.items, mine.items, strict=True)
        )  # fmt: skip
    if mine.sign == "=":
        raise Wrong(EQUATION)
    return False


def _without_approximation(gold: Node, mine: Node, formulas: Formulas) -> Node:
    """`1/3 \\approx 0.33` means 1/3; its rounding counts where the gold itself is a decimal."""
    if mine.kind != "relation" or not mine.sign.endswith("approx") or "approx" in gold.sign:
        return mine
    kept, rounded = mine.items[-2], mine.items[-1]
    if "." in gold.text and kept.kind == rounded.kind == "leaf" and name_of(kept) is None:
        if formulas.near(kept.text, rounded.text) and same(gold, rounded, formulas):
            kept = rounded
    elif name_of(kept) is not None:
        kept = rounded
    if len(mine.items) == 2:
        return kept
    return Node("relation", mine.text, (*mine.items[:-2], kept), mine.sign.rpartition(" ")[0])


def _unchained(gold: Node, mine: Node, formulas: Formulas) -> Node:
    """`S = 1/2 = 0.5` is `S = 0.5`: a chain counts if it names something and all its values are the same."""
    if mine.kind != "relation" or len(mine.items) < 3 or set(mine.sign.split()) != {"="}:
        return mine
    if gold.kind == "relation" and gold.sign == mine.sign:
        return mine
    named, values = mine.items[0], mine.items[1:]
    while len(values) > 1 and name_of(values[0]) is not None:
        values = values[1:]
    if name_of(named) is None or not all(_same_shape(values[-1], value, formulas) for value in values[:-1]):
        raise Wrong(CHAIN)
    return Node("relation", mine.text, (named, values[-1]), "=")


def _assigned(node: Node) -> tuple[str | None, Node]:
    """The name and the value of `x = 5`, `5 = x`, `x \\in [1, 2]`, `1 < x \\le 2`; other nodes as they are."""
    if node.kind != "relation":
        return None, node
    signs = node.sign.split()
    if signs in (["="], ["in"], ["to"]) and len(node.items) == 2:
        name = name_of(node.items[0])
        if name is not None:
            return name, node.items[1]
        bare = signs == ["="] and not any(sign.isalpha() for sign in node.items[0].text)
        flipped = name_of(node.items[1]) if bare else None  # 5 = x
        return (flipped, node.items[0]) if flipped is not None else (None, node)
    return _interval(node, signs)


def _interval(node: Node, signs: list[str]) -> tuple[str | None, Node]:
    names = [name_of(item) for item in node.items]
    if all(sign in _ORDER for sign in signs):
        if len(signs) == 1 and (names[0] is None) != (names[1] is None):
            flip = names[0] is None
            bound, sign = (node.items[0], _FLIPPED[signs[0]]) if flip else (node.items[1], signs[0])
            below = sign.startswith("<")
            low, high = (shape("-\\infty"), bound) if below else (bound, shape("\\infty"))
            closed = "]" if below else "["
            marks = ("(" + (closed if "=" in sign else ")")) if below else ((closed if "=" in sign else "(") + ")")
            return names[1] if flip else names[0], Node("seq", node.text, (low, high), marks)
        if len(signs) == 2 and names[1] is not None and signs[0][0] == signs[1][0]:
            low, high = node.items[0], node.items[2]
            if signs[0][0] == ">":
                low, high, signs = high, low, signs[::-1]
            marks = ("[" if "=" in signs[0] else "(") + ("]" if "=" in signs[1] else ")")
            return names[1], Node("seq", node.text, (low, high), marks)
    return None, node


def _same_relation(gold: Node, mine: Node, formulas: Formulas) -> bool:
    if len(gold.items) != 2 or len(mine.items) != 2 or any(
        item.kind != "leaf" for item in (*gold.items, *mine.items)
    ):  # fmt: skip
        return False
    sides = [item.text for item in mine.items]
    if mine.sign != gold.sign:
        if _FLIPPED.get(mine.sign) != gold.sign:
            return False
        sides.reverse()
    return formulas.same_relation([item.text for item in gold.items], sides, gold.sign in _ORDER)


def _same_shape(gold: Node, mine: Node, formulas: Formulas) -> bool:
    pair = (gold.kind, mine.kind)
    if pair == ("leaf", "leaf"):
        return formulas.same(gold.text, mine.text)
    if pair == ("matrix", "matrix"):
        same_form = gold.sign.split()[1:] == mine.sign.split()[1:]
        return same_form and ("vmatrix" in gold.sign) == ("vmatrix" in mine.sign) and _ordered(gold, mine, formulas)
    if gold.kind == "seq":
        if mine.kind == "seq":
            return gold.sign == mine.sign and _ordered(gold, mine, formulas)
        return mine.kind == "list" and mine.sign == "," and gold.sign == "()" and _ordered(gold, mine, formulas)
    if gold.kind in ("list", "set", "union"):
        return _same_members(gold, mine, formulas)
    if mine.kind == "list":
        if mine.sign == "and" and mine.items and all(same(gold, item, formulas) for item in mine.items):
            return True
        raise Wrong(SEVERAL)
    if mine.kind == "set" and len(mine.items) == 1:
        return same(gold, mine.items[0], formulas)
    return False


def _same_members(gold: Node, mine: Node, formulas: Formulas) -> bool:
    if mine.kind == "seq":
        return gold.kind == "list" and mine.sign == "()" and _ordered(gold, mine, formulas)
    if gold.kind == "union":
        parts = mine.items if mine.kind in ("union", "list") else (mine,)
        return _unordered(gold.items, [_assigned(part)[1] for part in parts], formulas)
    if mine.kind == "union":
        return False
    members = mine.items if mine.kind in ("list", "set") else (mine,)
    if "set" in (gold.kind, mine.kind):
        return _unordered(_distinct(gold.items), _distinct(members), formulas)
    return _unordered(gold.items, members, formulas)


def _distinct(items: Sequence[Node]) -> list[Node]:
    return list({compact(item.text): item for item in items}.values())


def _ordered(gold: Node, mine: Node, formulas: Formulas) -> bool:
    return len(gold.items) == len(mine.items) and _all(
        lambda pair: same(pair[0], pair[1], formulas), list(zip(gold.items, mine.items, strict=True))
    )


def _all(test: Callable[[tuple[Node, Node]], bool], pairs: list[tuple[Node, Node]]) -> bool:
    return all(test(pair) for pair in pairs)


def _unordered(gold: Sequence[Node], mine: Sequence[Node], formulas: Formulas) -> bool:
    """Whether each member of the one is a member of the other, and none is left over."""
    if len(gold) != len(mine) or len(gold) > _MOST:
        return False
    left = list(mine)
    for wanted in gold:
        texts = [compact(item.text) for item in left]
        if compact(wanted.text) in texts:
            left.pop(texts.index(compact(wanted.text)))
            continue
        for at, item in enumerate(left):
            if same(wanted, item, formulas):
                left.pop(at)
                break
        else:
            return False
    return True
