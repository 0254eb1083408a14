r"""The shape of an answer: a list, a set, a tuple or interval, a union, a matrix, a relation, or one formula."""

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Node:
    """A part of an answer.

    Attributes:
        kind: `list` (unordered), `set`, `seq` (a tuple or an interval), `union`, `matrix`, `relation` or `leaf`.
        text: the normalised text.
        items: the parts; the sides of a relation; the entries of a matrix, row by row.
        sign: how a list was joined (`,`, `and` for words, `pm`), the brackets of a sequence (`[)`), the relations
            of a relation (`= <`), the columns of each row of a matrix (`2 2`).
    """

    kind: str
    text: str
    items: tuple["Node", ...] = ()
    sign: str = ""


_SPLITTERS = re.compile(
    r"\\[{}]|\\(?:text\s*\{\s*,?\s*(?P<joint>and|or|,|;)\s*\}|begin\{|end\{|langle(?![a-z])|rangle(?![a-z])"
    r"|lfloor(?![a-z])|rfloor(?![a-z])|lceil(?![a-z])|rceil(?![a-z])"
    r"|(?P<rel>approx|cong|equiv|sim|le|ge|ne|in|to|rightarrow|mapsto|implies|Rightarrow|iff)(?![a-zA-Z])"
    r"|(?P<cup>cup)(?![a-z])|[a-zA-Z]+|\\|.)"
    r"|(?P<sign>[<>]=?|!=|==?)|(?P<word>(?<![a-zA-Z])(?:and|or|U)(?![a-zA-Z]))|[(\[{]|[)\]}]|(?P<comma>[,;])",
    re.DOTALL,
)
_STEPS = {
    **dict.fromkeys(("(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil"), 1),
    **dict.fromkeys((")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil"), -1),
    "\\begin{": 2,  # its brace, and what it begins
    "\\end{": 0,  # a brace, less what ends
}
"""How much deeper each bracket leads."""
_RELATIONS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "==": "=", "\\cong": "=", "\\equiv": "="}
_MATRIX = re.compile(r"\\begin\{(\w*matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}$", re.DOTALL)
_PM = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_DEEPEST = 24


class TooDeep(Exception):
    """More brackets inside brackets than any answer has."""


@dataclass(frozen=True)
class _Cut:
    kind: str
    start: int
    end: int
    sign: str


def _cuts(text: str) -> list[_Cut]:
    """The commas, joining words, relations and unions outside all brackets."""
    found: list[_Cut] = []
    depth = 0
    for piece in _SPLITTERS.finditer(text):
        sign = piece[0]
        step = _STEPS.get(sign)
        if step is not None:
            depth = max(0, depth + step)
            if depth > _DEEPEST:
                raise TooDeep
        elif depth == 0:
            cut = _cut(piece)
            if cut is not None:
                found.append(cut)
    return found


def _cut(piece: re.Match[str]) -> _Cut | None:
    start, end = piece.span()
    if piece["comma"]:
        return _Cut("list", start, end, ",")
    if piece["joint"] or piece["word"] in ("and", "or"):
        joint = piece["joint"] or piece["word"]
        return _Cut("list", start, end, "," if joint in ",;" else "and")
    if piece["rel"] or piece["sign"]:
        return _Cut("relation", start, end, _RELATIONS.get(piece[0], piece[0].lstrip("\\")))
    if piece["cup"] or piece["word"] == "U":
        return _Cut("union", start, end, "")
    return None


def _pieces(text: str, cuts: list[_Cut]) -> list[str]:
    edges = [0, *(edge for cut in cuts for edge in (cut.start, cut.end)), len(text)]
    return [text[edges[at] : edges[at + 1]].strip() for at in range(0, len(edges), 2)]


@lru_cache(maxsize=4096)
def shape(text: str) -> Node:
    """The shape of a normalised answer.

    Raises:
        TooDeep: if its brackets nest too deep.
    """
    text = _unbraced(text.strip())
    cuts = _cuts(text)
    for kind in ("list", "relation", "union"):
        chosen = [cut for cut in cuts if cut.kind == kind]
        if not chosen:
            continue
        pieces = _pieces(text, chosen)
        if kind == "union" and not all(piece[-1:] in (")", "]", "}") for piece in pieces):
            continue
        if kind == "list":
            return _list(text, [piece for piece in pieces if piece], chosen)
        sign = " ".join(cut.sign for cut in chosen)
        return Node(kind, text, tuple(shape(piece) for piece in pieces), sign)
    return _single(text)


def _list(text: str, pieces: list[str], cuts: list[_Cut]) -> Node:
    sign = "and" if any(cut.sign == "and" for cut in cuts) else ","
    items: list[Node] = []
    for piece in pieces:
        node = shape(piece)
        items.extend(node.items if node.kind == "list" and node.sign == "pm" else [node])
    return items[0] if len(items) == 1 else Node("list", text, tuple(items), sign)


def _unbraced(text: str) -> str:
    while text.startswith("{") and text.endswith("}") and _whole(text):
        text = text[1:-1].strip()
    return text


def _whole(text: str) -> bool:
    """Whether the first bracket closes at the very end."""
    depth = 0
    for piece in _SPLITTERS.finditer(text):
        depth += _STEPS.get(piece[0], 0)
        if depth <= 0:
            return piece.end() == len(text)
    return False


def _single(text: str) -> Node:
    matrix = _MATRIX.match(text)
    if matrix and "\\begin" not in matrix[2]:
        rows = [row.split("&") for row in re.split(r"\\\\", matrix[2]) if row.strip()]
        entries = tuple(shape(entry) for row in rows for entry in row)
        return Node("matrix", text, entries, f"{matrix[1]} " + " ".join(str(len(row)) for row in rows))
    bracketed = _bracketed(text)
    if bracketed is not None:
        return bracketed
    if _PM.search(text):
        plus = _PM.sub(lambda found: "+" if found[1] == "pm" else "-", text)
        minus = _PM.sub(lambda found: "-" if found[1] == "pm" else "+", text)
        return Node("list", text, (shape(plus), shape(minus)), "pm")
    return Node("leaf", text)


def _bracketed(text: str) -> Node | None:
    """`(a, b)`, `[a, b)`, `\\{a, b\\}` or `\\langle a, b \\rangle`; None where there is no comma, but for a set."""
    for left, right, kind in (("\\{", "\\}", "set"), ("\\langle", "\\rangle", "seq"), ("([", ")]", "seq")):
        if kind == "set" or left == "\\langle":
            if not (text.startswith(left) and text.endswith(right) and _whole(text)):
                continue
            inner, sign = text[len(left) : -len(right)].strip(), "()"
        elif text[:1] and text[0] in left and text[-1] in right and _whole(text):
            inner, sign = text[1:-1].strip(), text[0] + text[-1]
        else:
            continue
        node = shape(inner) if inner else Node("list", "")
        if node.kind == "list" and (node.sign in ("", ",") or kind == "set"):
            return Node(kind, text, node.items, sign)
        if kind == "set":
            return Node(kind, text, (node,), sign)
        return node if sign == "()" and left != "\\langle" else None
    return None
