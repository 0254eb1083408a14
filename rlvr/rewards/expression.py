r"""Read one formula: numbers, letters, `\frac`, `\sqrt`, powers, functions. A tree of tuples; linear in the text.

Trees: ("num", text), ("sym", name), ("add", a, b), ("mul", a, b), ("div", a, b), ("neg", a), ("pow", a, b),
("mixed", a, b) for 1 1/2,
("fn", name, a...), ("deg", a), ("pct", a).
"""

from functools import lru_cache
from typing import Any

from rlvr.rewards.tokens import (
    ALIASES,
    CLOSED,
    CONSTANTS,
    DECORATIONS,
    DEEPEST,
    DIFFERENTIAL,
    FUNCTIONS,
    MULTIPLIERS,
    OPENERS,
    SYMBOLS,
    Unreadable,
    tokens_of,
)  # fmt: skip

Tree = tuple[Any, ...]


@lru_cache(maxsize=4096)
def read(text: str) -> Tree:
    """The tree of a normalised formula.

    Raises:
        Unreadable: if it is none.
    """
    reader = _Reader(tokens_of(text))
    tree = reader.sum()
    if reader.peek():
        raise Unreadable(text)
    return tree


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def peek(self) -> str:
        while self.at < len(self.tokens) and self.tokens[self.at] == " ":
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise Unreadable(token)
        self.at += 1
        return token

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable("depth")
        tree = self.product()
        while self.peek() in ("+", "-"):
            sign, right = self.take(), self.product()
            tree = ("add", tree, ("neg", right) if sign == "-" else right)
        self.depth -= 1
        return tree

    def product(self) -> Tree:
        tree = self.signed()
        while True:
            token = self.peek()
            if token in MULTIPLIERS:
                self.take()
                tree = ("mul", tree, self.signed())
            elif token in ("/", ":"):
                self.take()
                tree = ("div", tree, self.signed())
            elif self.starts_factor(token):
                tree = self.beside(tree)
            else:
                return tree

    def beside(self, left: Tree) -> Tree:
        """What stands next to a factor without a sign: a factor, or the fraction of a mixed number."""
        start = self.at
        right = self.power()
        whole, top, bottom = left, right, None
        if right[0] == "div":
            _, top, bottom = right
        elif left[0] == "num" and right[0] == "num" and self.tokens[start][0].isdigit():
            if self.peek() != "/":
                raise Unreadable("two numbers in a row")
            self.take()
            bottom = self.power()
        parts = [part[1] for part in (whole, top, bottom) if part and part[0] == "num" and part[1].isdigit()]
        if len(parts) == 3 and int(parts[1]) < int(parts[2]):
            return ("mixed", left, ("div", top, bottom))
        if bottom is not None and right[0] != "div":
            raise Unreadable("two numbers in a row")
        return ("mul", left, right)

    def signed(self) -> Tree:
        token = self.peek()
        if token in ("+", "-"):
            self.take()
            self.depth += 1
            if self.depth > DEEPEST:
                raise Unreadable("depth")
            inner = self.signed()
            # The whole part of a mixed number takes its fraction before the sign: -1 1/2 is -3/2.
            while self.starts_factor(self.peek()) and inner[0] == "num":
                inner = self.beside(inner)
            self.depth -= 1
            return inner if token == "+" else ("neg", inner)
        return self.power()

    @staticmethod
    def starts_factor(token: str) -> bool:
        if not token:
            return False
        if token[0] == "\\":
            return token not in (r"\}", r"\rfloor", r"\rceil", r"\%", r"\rangle", r"\cdot", r"\times", r"\|")
        return token[0].isalnum() or token[0] == "." or token in ("(", "[", "{")

    def power(self) -> Tree:
        base = self.postfix(self.atom())
        if self.peek() != "^":
            return base
        self.take()
        return self.postfix(("pow", base, self.exponent()))

    def exponent(self) -> Tree:
        token = self.peek()
        if token == "{":
            return self.group("{")
        if token in ("-", "+"):
            self.take()
            inner = self.exponent()
            return ("neg", inner) if token == "-" else inner
        return self.atom()

    def postfix(self, tree: Tree) -> Tree:
        while True:
            token = self.peek()
            if token == "!":
                self.take()
                tree = ("fn", "factorial", tree)
            elif token == r"\%":
                self.take()
                tree = ("pct", tree)
            elif token == "^" and [t for t in self.tokens[self.at : self.at + 6] if t != " "][1:4] == [
                "{",
                r"\circ",
                "}",
            ]:
                while self.take() != "}":
                    pass
                tree = ("deg", tree)
            else:
                return tree

    def group(self, opener: str) -> Tree:
        self.take(opener)
        tree = self.sum()
        self.take(OPENERS[opener])
        return tree

    def atom(self) -> Tree:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return self.number(token)
        if token in OPENERS:
            self.at -= 1
            return self.group(token)
        if token == "|":
            inner = self.sum()
            self.take("|")
            return ("fn", "abs", inner)
        if token.isalpha():
            return self.symbol(token)
        if token[0] == "\\":
            return self.command(token[1:])
        raise Unreadable(token)

    def number(self, token: str) -> Tree:
        following = self.peek()
        if following in (r"\overline", r"\bar", r"\dot") and "." in token:
            self.take()
            digits = self.raw()
            if not digits.isdigit():
                raise Unreadable(token)
            return ("num", f"{token}({digits})")
        if following == "_":
            self.take()
            return ("sym", f"#{token.lstrip('0') or '0'}_{self.raw().strip('()')}")
        return ("num", token)

    def raw(self) -> str:
        """The text of the next group or token, without blanks, braces and fonts."""
        if self.peek() != "{":
            return self.take()
        start, depth = self.at, 0
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return "".join(t for t in self.tokens[start : self.at] if t not in ("{", "}", " ", r"\text"))

    def symbol(self, name: str) -> Tree:
        if name in CONSTANTS and self.peek() not in ("_", "'"):
            return ("const", CONSTANTS[name])
        while self.peek() in ("_", "'"):
            name += self.take()
            if name[-1] == "_":
                name += self.raw()
        if self.peek() == "(" and self.tokens[self.at + 2 : self.at + 3] == [")"]:
            inside = self.tokens[self.at + 1]
            if inside == "0" or (inside.isdigit() and name in ("f", "g", "h", "F", "G", "P")):
                self.at += 3  # I(0) is the value of a function, not a product with 0
                return ("sym", f"{name}({inside})")
        return ("sym", name)

    def argument(self) -> Tree:
        """What a command without parentheses takes: a group, or one token (`\\frac12`)."""
        token = self.peek()
        if token == "{":
            return self.group("{")
        if token[:1].isdigit() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return ("num", token[0])
        return self.atom()

    def command(self, name: str) -> Tree:
        if name in SYMBOLS:
            return self.symbol("\\" + name)
        if name in CONSTANTS:
            return ("const", CONSTANTS[name])
        if name == "frac":
            return self.fraction()
        if name == "binom":
            return ("fn", "binom", self.argument(), self.argument())
        if name == "sqrt":
            return self.root()
        if name in ("lfloor", "lceil"):
            inner = self.sum()
            self.take("\\r" + name[1:])
            return ("fn", "floor" if name == "lfloor" else "ceil", inner)
        if name in DECORATIONS:
            return self.symbol(f"\\{name}{{{self.raw()}}}")
        if name in FUNCTIONS:
            return self.function(ALIASES.get(name, name))
        raise Unreadable(name)

    def fraction(self) -> Tree:
        start = self.at
        if self.peek() == "{":
            top, bottom = self.raw(), self.raw()
            if DIFFERENTIAL.match(top) and DIFFERENTIAL.match(bottom) and bottom != "d":
                return ("sym", f"{top}/{bottom}")
        self.at = start
        return ("div", self.argument(), self.argument())

    def root(self) -> Tree:
        if self.peek() != "[":
            number = self.peek()
            # `\sqrt2` takes one digit, `√12` all of them; nobody writes \sqrt12 for 2\sqrt{1}.
            return ("fn", "root", self.atom() if number[:1].isdigit() else self.argument(), ("num", "2"))
        index = self.group("[")
        return ("fn", "root", self.argument(), index)

    def function(self, name: str) -> Tree:
        base, exponent = None, None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = self.argument()
            else:
                exponent = self.exponent()
        if name in ("gcd", "lcm", "max", "min", "operatorname"):
            raise Unreadable(name)
        argument = self.group(self.peek()) if self.peek() in CLOSED else self.bare_argument()
        inverse = exponent == ("neg", ("num", "1")) and name in ("sin", "cos", "tan", "cot")
        if inverse:
            name, exponent = "arc" + name, None
        tree: Tree = ("fn", name, argument) if base is None else ("fn", name, argument, base)
        return tree if exponent is None else ("pow", tree, exponent)

    def bare_argument(self) -> Tree:
        """The factors after `\\sin`, up to a sign or the next function."""
        tree = self.power() if self.peek() != "-" else self.signed()
        while self.starts_factor(self.peek()) and self.peek()[1:] not in FUNCTIONS:
            tree = ("mul", tree, self.power())
        return tree
