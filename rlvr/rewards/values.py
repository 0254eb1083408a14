"""What a formula is worth: exactly where only fractions are involved, else to as many digits as asked. Bounded work."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from rlvr.rewards.expression import Tree

BITS = 60_000
"""The largest number that is worked out, bits."""

Value = Any
"""A Fraction, or a number of mpmath."""


class TooBig(Exception):
    """A number too large to work out: a tower, a huge factorial or power."""


class Undefined(Exception):
    """The formula has no value here: a division by zero, 0^0, infinity minus infinity."""


class NotRational(Exception):
    """The exact evaluation met a root, a letter or a function."""


def number(text: str) -> Fraction:
    """The exact value of a literal: `3`, `.5`, `3.`, `1e-6`, `0.1(6)` with a repeating part."""
    if text.endswith(")"):
        fixed, _, repeating = text[:-1].partition("(")
        decimals = len(fixed.partition(".")[2])
        return Fraction(fixed or 0) + Fraction(int(repeating), (10 ** len(repeating) - 1) * 10**decimals)
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) > 5 or len(mantissa) > 4000:
        raise TooBig
    value = Fraction(mantissa + "0" if mantissa.endswith(".") else mantissa)
    return value * Fraction(10) ** int(exponent) if exponent else value


def exact(tree: Tree) -> Fraction:
    """The value of a formula of rational numbers.

    Raises:
        NotRational: if anything else is in it.
        TooBig: if a number in it is beyond bounds.
        Undefined: for a division by zero.
    """
    return _exact(tree, {})


def _exact(tree: Tree, env: Mapping[str, Fraction]) -> Fraction:
    kind = tree[0]
    if kind == "num":
        return number(tree[1])
    if kind == "sym" and tree[1] in env:
        return env[tree[1]]
    if kind == "pct":
        return _exact(tree[1], env) / 100
    if kind in ("sym", "const", "deg"):
        raise NotRational
    parts = [_exact(part, env) for part in tree[1:] if isinstance(part, tuple)]
    if kind == "fn":
        return _exact_function(tree[1], parts)
    return combine(kind, parts)


def combine(kind: str, parts: list[Fraction]) -> Fraction:
    """A sum, product, quotient or power of fractions."""
    left = parts[0]
    if kind == "neg":
        return -left
    right = parts[1]
    if kind in ("add", "mixed"):
        return bounded(left + right)
    if kind == "mul":
        return bounded(left * right)
    if kind == "div":
        if right == 0:
            raise Undefined
        return bounded(left / right)
    return _power(left, right)


def bounded(value: Fraction) -> Fraction:
    """The value itself, unless it is beyond bounds."""
    if value.numerator.bit_length() + value.denominator.bit_length() > BITS:
        raise TooBig
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if base == 0 and exponent <= 0:
        raise Undefined
    if exponent.denominator != 1:
        root = _exact_root(base, exponent.denominator)
        return _power(root, Fraction(exponent.numerator))
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base not in (0, 1, -1) and abs(exponent) * bits > BITS:
        raise TooBig
    return base ** int(exponent) if base not in (1, -1) else (base if exponent % 2 else Fraction(1))


def _exact_root(value: Fraction, index: int) -> Fraction:
    if value < 0 or index > 64:
        raise NotRational
    parts = []
    for whole in (value.numerator, value.denominator):
        root = math.isqrt(whole) if index == 2 else round(whole ** (1 / index)) if whole < 2**50 else 0
        if root**index != whole:
            raise NotRational
        parts.append(root)
    return Fraction(parts[0], parts[1])


def _exact_function(name: str, parts: list[Fraction]) -> Fraction:
    value = parts[0]
    if name == "root" and parts[1].denominator == 1 and parts[1] > 0:
        index = int(parts[1])
        return -_exact_root(-value, index) if value < 0 and index % 2 else _exact_root(value, index)
    if name in ("floor", "ceil"):
        return Fraction(math.floor(value) if name == "floor" else math.ceil(value))
    if name == "abs":
        return abs(value)
    if name == "factorial" and value.denominator == 1 and value >= 0:
        if value > 3000:
            raise TooBig
        return Fraction(math.factorial(int(value)))
    if name == "binom" and value.denominator == parts[1].denominator == 1 and min(parts[0], parts[1]) >= 0:
        if value > 20_000:
            raise TooBig
        return bounded(Fraction(math.comb(int(value), int(parts[1]))))
    raise NotRational


def evaluate(tree: Tree, env: Mapping[str, Fraction], context: Any) -> Value:
    """The value of any formula, with `env` for its letters: a Fraction if it can be, else a number of mpmath.

    Args:
        tree: the formula.
        env: a value for every letter.
        context: of mpmath, with the precision set.

    Raises:
        TooBig: if a number in it is beyond bounds.
        Undefined: where it has no value.
    """
    try:
        return _exact(tree, env)
    except NotRational:
        return _evaluate(tree, env, context)


def _evaluate(tree: Tree, env: Mapping[str, Fraction], mp: Any) -> Value:
    kind = tree[0]
    if kind == "const":
        return {"pi": mp.pi, "e": mp.e, "I": mp.mpc(0, 1), "oo": mp.inf}[tree[1]] + 0
    if kind == "deg":
        return real(_evaluate(tree[1], env, mp), mp) * mp.pi / 180
    if kind in ("num", "sym", "pct"):
        if kind == "pct":
            return real(_evaluate(tree[1], env, mp), mp) / 100
        return number(tree[1]) if kind == "num" else env[tree[1]]
    parts = [_evaluate(part, env, mp) for part in tree[1:] if isinstance(part, tuple)]
    if all(isinstance(part, Fraction) for part in parts):
        try:
            return _exact_function(tree[1], parts) if kind == "fn" else combine(kind, parts)
        except NotRational:
            pass
    return _numeric(kind, tree[1], [real(part, mp) for part in parts], mp)


def real(value: Value, mp: Any) -> Value:
    """A Fraction as a number of mpmath; other values as they are."""
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _numeric(kind: str, name: Any, parts: list[Value], mp: Any) -> Value:
    if kind == "fn":
        value = _FUNCTIONS[name](mp, *parts)
    elif kind == "pow":
        value = _numeric_power(parts[0], parts[1], mp)
    elif kind == "div":
        if parts[1] == 0:
            raise Undefined
        value = parts[0] / parts[1]
    else:
        value = -parts[0] if kind == "neg" else parts[0] + parts[1] if kind in ("add", "mixed") else parts[0] * parts[1]
    if mp.isnan(value):
        raise Undefined
    return value


def _numeric_power(base: Value, exponent: Value, mp: Any) -> Value:
    if base == 0:
        if mp.re(exponent) <= 0:
            raise Undefined
        return base
    if not mp.isinf(base) and not mp.isinf(exponent) and abs(exponent) * (1 + abs(mp.mag(base))) > BITS:
        raise TooBig
    return mp.power(base, exponent)


def _moderate(function: str) -> Callable[..., Value]:
    """A function of mpmath, for arguments that are not astronomical."""

    def call(mp: Any, value: Value, *_: Value) -> Value:
        if not mp.isinf(value) and mp.mag(value) > 16:
            raise TooBig
        return getattr(mp, function)(value)

    return call


def _logarithm(mp: Any, value: Value, *base: Value) -> Value:
    if value == 0 or (base and base[0] in (0, 1)):
        raise Undefined
    return mp.log(value) / mp.log(base[0]) if base else mp.log(value)


def _root(mp: Any, value: Value, index: Value) -> Value:
    if index == 0:
        raise Undefined
    odd = mp.isint(index) and int(mp.re(index)) % 2 == 1
    if odd and mp.im(value) == 0 and mp.re(value) < 0:
        return -mp.power(-value, 1 / index)
    return mp.sqrt(value) if index == 2 else mp.power(value, 1 / index)


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    **{name: _moderate(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp")},
    "arcsin": _moderate("asin"), "arccos": _moderate("acos"), "arctan": _moderate("atan"), "arccot": _moderate("acot"),
    "arg": _moderate("arg"), "Re": _moderate("re"), "Im": _moderate("im"), "factorial": _moderate("factorial"),
    "log": _logarithm, "ln": _logarithm, "root": _root, "abs": lambda mp, value: abs(value),
    "floor": lambda mp, value: mp.floor(value), "ceil": lambda mp, value: mp.ceil(value),
    "binom": lambda mp, above, below: mp.binomial(above, below),
}  # fmt: skip
