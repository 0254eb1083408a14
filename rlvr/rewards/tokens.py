r"""The words of a formula: numbers, commands, letters, signs."""

import re


class Unreadable(Exception):
    """The text is no formula of this grammar."""


_TOKENS = re.compile(
    r"(?P<num>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)|(?P<cmd>\\(?:[a-zA-Z]+|[{}%|]))"
    r"|(?P<word>arcsin|arccos|arctan|asin|acos|atan|sinh|cosh|tanh|sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi(?![a-z]))"
    r"|(?P<let>[a-zA-Z])|(?P<op>\*\*|[-+*/^_()\[\]{}|!',:])|(?P<space> +)",
    re.ASCII,
)
DEEPEST = 24
FUNCTIONS = [
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "arcsin",
    "arccos",
    "arctan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "log",
    "ln",
    "lg",
    "exp",
    "arccot",
    "arg",
    "Re",
    "Im",
    "operatorname",
    "gcd",
    "lcm",
    "max",
    "min",
]
ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}
CONSTANTS = {"pi": "pi", "infty": "oo", "i": "I", "e": "e"}
DECORATIONS = ("dot", "ddot", "hat", "vec", "bar", "tilde", "overline", "widehat", "overrightarrow", "mathbb")
_GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Xi",
    "Pi",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
    "hbar",
    "ell",
    "odot",
    "nabla",
    "partial",
    "mho",
    "vartheta",
    "aleph",
    "oplus",
]
SYMBOLS = frozenset(_GREEK)
DIFFERENTIAL = re.compile(r"\s*d\s*(?:\^\s*\{?\s*\d\s*\}?)?\s*([\\a-zA-Z][^+*/=-]*)?$")
OPENERS = {"(": ")", "[": "]", "{": "}"}
MULTIPLIERS = ("*", r"\cdot", r"\times")
CLOSED = ("{", "(")


def tokens_of(text: str) -> list[str]:
    """The words of a normalised formula; a run of blanks is one blank."""
    found: list[str] = []
    at = 0
    while at < len(text):
        piece = _TOKENS.match(text, at)
        if piece is None:
            raise Unreadable(text[at])
        token = piece[0]
        if piece.lastgroup == "word":
            token = "\\" + token
        elif piece.lastgroup == "op" and token == "**":
            token = "^"
        found.append(" " if piece.lastgroup == "space" else token)
        at = piece.end()
    return found
