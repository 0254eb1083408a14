"""Units after a number: taken off, and compared where both sides have one. Words of scale, `million`, are factors."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rlvr.rewards.words import SCALES

_FACTORS = {
    "length": {
        "mm": "1e-3", "cm": "1e-2", "m": "1", "km": "1e3", "nm": "1e-9", "in": "0.0254", "ft": "0.3048", "yd": "0.9144",
        "mi": "1609.344",
    },
    "volume": {"ml": "1e-6", "l": "1e-3"},
    "mass": {"mg": "1e-6", "g": "1e-3", "kg": "1", "lb": "0.45359237", "oz": "0.028349523125"},
    "time": {
        "ms": "1e-3", "s": "1", "min": "60", "h": "3600", "day": "86400", "week": "604800", "month": "2629800",
        "year": "31557600",
    },
    "money": {"cent": "0.01", "dollar": "1"},
    "angle": {"degree": "1", "radian": "57.29577951308232"},
    "morning": {"am": "1"},
    "evening": {"pm": "1"},
    "share": {"%": "1"},
}  # fmt: skip
_KIND = {unit: (kind, Fraction(factor)) for kind, units in _FACTORS.items() for unit, factor in units.items()}
_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "g": "gram", "kg": "kilogram", "mg": "milligram",
    "lb": "pound lbs", "oz": "ounce", "s": "second sec", "min": "minute mins", "h": "hour hr", "day": "day",
    "week": "week", "month": "month", "year": "year yr", "cent": "cent", "dollar": "dollar usd", "l": "liter litre L",
    "ml": "milliliter millilitre mL", "mi/h": "mph", "km/h": "kmh kph kmph", "degree": "degree deg",
    "radian": "radian rad", "%": "percent pct", "am": "AM am", "pm": "PM pm",
}  # fmt: skip
_ALIAS = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_BARE = frozenset(SCALES).union([
    "mm", "cm", "km", "nm", "ft", "kg", "mg", "lb", "lbs", "oz", "mph", "min", "hr", "hrs", "sec", "inch",
    "inches", "foot", "feet", "meter", "meters", "metre", "metres", "mile", "miles", "hour", "hours", "minute",
    "minutes", "second", "seconds", "day", "days", "week", "weeks", "month", "months", "year", "years", "dollar",
    "dollars", "cent", "cents", "degree", "degrees", "radians", "rad", "percent", "unit", "units", "square",
    "cubic", "sq", "gram", "grams", "liter", "liters", "litre", "litres", "mL", "ml", "kJ", "kW", "Hz", "eV",
    "mol", "km/h", "m/s", "ways", "way", "people", "pounds", "yards", "yard", "AM", "PM", "am", "pm", "kmh", "kPa",
    "Pa",
])  # fmt: skip
_LETTERS = frozenset("msghlLJNWVAKCFTM")
"""Units of one letter. Any other letter is a variable, `i`, or `k` for a thousand."""
_CHANGING = frozenset(SCALES).union((f"{scale}s" for scale in SCALES), [
    "squared", "cubed", "factorial", "pi", "infinity", "infty", "root", "sqrt", "plus", "minus", "divided",
    "multiplied", "doubled", "tripled", "halved", "half", "halves", "thirds", "fourths", "fifths", "sixths",
    "sevenths", "eighths", "ninths", "tenths", "hundredths", "thousandths",
])  # fmt: skip
"""Words that make another value of the number before them."""
_MARKS = "()!?'\"\\/*"
_LEADING = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_TRAILING = {"squared": 2, "cubed": 3}
# The tails are searched for in the asking process, where no deadline is: what repeats may fit a text in one way only.
_TEXT_TAIL = re.compile(
    r"(?<![\s/])((?:[\s/]|\\cdot(?![a-z]))*)\\text\s*\{([^{}]*)\}\s*(\^\s*(?:\{\s*-?\d\s*\}|-?\d))?\s*\.?$"
)
_WORD_TAIL = re.compile(r"(?<=[\d)}])\s*([A-Za-z][A-Za-z/\s]*)(\^\s*(?:\{\s*\d\s*\}|\d))?$")
_LETTER_TAIL = re.compile(
    r"(?<=[\d})])(?:(?:\s+|\s*/\s*|\s*\\cdot\s*)(?:\\mu\s*)?(?:[msghLJNWVAKCFTΩ]|kg|cm|km|nm|mm|mol|eV|Hz|Pa|erg|rad|\\AA)"
    r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?)+$"
)
_FRACTION_TAIL = re.compile(
    r"\s*\\frac\s*\{\s*\\text\{[^{}]*\}[^{}]{0,4}\}\s*\{\s*\\text\{[^{}]*\}\s*(?:\^\s*(?:\d|\{\d\}))?\s*\}$"
)
_DEGREE_TAIL = re.compile(r"\s*\^\{\\circ\}\s*(?:\\text\{)?([CF])?\}?$")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_PERCENT_TAIL = re.compile(r"\s*\\%$")
_HEDGE = re.compile(
    r"\b(?:or|and|not|maybe|perhaps|if|except|unless|either|mod|base|no|but|wrong)\b|\d|=", re.IGNORECASE
)
_REMARK = re.compile(r"\s*\\text\s*\{\s*\(([^{}()]*)\)?\s*\}\s*$")
_APPROXIMATION = re.compile(
    r"\s*(?:\\text\s*\{\s*)?\(?\s*(?:\\text\s*\{\s*)?\(?(?:or )?(?:approximately|approx\.?|about)[\s}]"
)


@dataclass(frozen=True)
class Quantity:
    """A value and its unit.

    Attributes:
        value: the text of the value.
        unit: its canonical unit, `%`, `degree`, or empty.
        power: the power of the unit; of `m/s`, that of its lower part.
        scale: what the words before the unit multiply the value with; 1 for none.
    """

    value: str
    unit: str = ""
    power: int = 1
    scale: int = 1


@lru_cache(maxsize=4096)
def quantity(text: str) -> Quantity:
    r"""A normalised formula without its unit: `5 \text{cm}`, `5 cm^2`, `50\%`, `30^{\circ}`, `18.90 \text{dollars}`.

    Words that are no unit and make another value of the number, `5 \text{squared}`, `5 \text{x}`, stay.
    """
    text = _without_remark(text)
    rest, name, power = _apart(text)
    scale, name = _scale(name)
    if _changes(name) or (scale != 1 and not name and power != 1):
        return Quantity(text)
    for pattern, unit in ((_PERCENT_TAIL, "%"), (_DEGREE_TAIL, "degree")):
        found = pattern.search(rest)
        if found and rest[: found.start()].strip() and not (unit == "degree" and _FUNCTION.search(rest)):
            return Quantity(rest[: found.start()].strip(), unit, scale=scale)
    unit, power = _canonical(name, power)
    return Quantity(rest, unit, power, scale)


def _apart(text: str) -> tuple[str, str, int]:
    """What stands before the words at the end, the words, and their power."""
    names: list[str] = []
    power = 1
    for _ in range(4):
        tail = _TEXT_TAIL.search(text)
        if tail is None or _HEDGE.search(tail[2]) or not text[: tail.start()].strip():
            break
        text = text[: tail.start()].strip()
        names.append(("/" if "/" in tail[1] else "") + tail[2])
        power = _power(tail[3]) if tail[3] else power
    return (text, " ".join(reversed(names)), power) if names else _bare(text)


def _bare(text: str) -> tuple[str, str, int]:
    """A unit in plain letters, `5 cm`: only names that are no product of letters."""
    tail = _WORD_TAIL.search(text)
    if tail and all(word in _BARE for word in tail[1].split()):
        return text[: tail.start()].strip(), tail[1], _power(tail[2])
    return text, "", 1


def letter_unit(text: str) -> str:
    r"""A value without units in single letters or fractions, `5 m`, `5 m s^{-1}`; for golds that are plain numbers."""
    return _LETTER_TAIL.sub("", _FRACTION_TAIL.sub("", text)).strip() or text


def _without_remark(text: str) -> str:
    """Without a remark in brackets at the end, `\\text{ (approximately } 0.5)`."""
    remark = _REMARK.search(text)
    if remark and remark.start() and not _HEDGE.search(remark[0]) and not _is_factor(remark[1]):
        return text[: remark.start()].strip()
    approximation = _APPROXIMATION.search(text)
    return text[: approximation.start()].strip() if approximation and approximation.start() else text


def _is_factor(remark: str) -> bool:
    """Whether a remark belongs to the value: `(in millions)`, `(x)`; `(two hundred)` says it again, `(B)` chooses."""
    scale, name = _scale(remark.strip().removeprefix("in "))
    return scale != 1 or (len(name.split()) == 1 and not name.isupper() and _changes(name))


def _scale(name: str) -> tuple[int, str]:
    """The factor that the first words of a unit are, and the words after them."""
    scale, words = 1, name.replace(".", "").replace(",", " ").split()
    for at, word in enumerate(words):
        factor = SCALES.get(word.lower().removesuffix("s"))
        if factor is None:
            return scale, " ".join(words[at:])
        scale *= factor
    return scale, ""


def _changes(name: str) -> bool:
    """Whether the words of a unit make another value of the number before them; `cm squared` is a unit."""
    words = name.split()
    if not words:
        return False
    first = words[0].strip(_MARKS)
    plain = [word.strip(_MARKS).lower() for word in words]
    if len(first) == 1 and first.isascii() and first.isalpha() and first not in _LETTERS:
        return first != "a" or len(words) == 1  # the article of `5 a day`
    if len(words) > 1 and plain[-1] in _TRAILING:
        plain.pop()
    return not _CHANGING.isdisjoint(plain) or "times" in plain[:-1]


def _power(text: str | None) -> int:
    digits = [sign for sign in text or "" if sign.isdigit()]
    return (-1 if "-" in (text or "") else 1) * int(digits[0]) if digits else 1


def _canonical(name: str, power: int) -> tuple[str, int]:
    """The unit that a few words name, and its power; empty for one without a known size."""
    words = name.lower().split() if len(name.split()) > 1 or len(name) > 2 else name.split()
    squared = bool(words) and words[0] in _LEADING
    if squared:
        power, words = _LEADING[words[0]], words[1:]
    elif len(words) > 1 and words[-1] in _TRAILING:
        power, words = _TRAILING[words[-1]], words[:-1]
    upper, slash, lower = " ".join(words).replace(" per ", "/").partition("/")
    unit = _known(upper.strip())
    if slash:
        below = _known(lower.strip())
        speed = not squared and (_kind(unit), _kind(below)) == ("length", "time")
        unit = f"{unit}/{below}" if speed else ""
    return (unit, power) if unit else ("", 1)


def _known(name: str) -> str:
    for spelling in (name, name.removesuffix("s")):
        if spelling in _ALIAS or spelling in _KIND:
            return _ALIAS.get(spelling, spelling)
    return ""


def _kind(unit: str) -> str:
    return _KIND[unit][0] if unit in _KIND else ""


def ratio(mine: Quantity, gold: Quantity) -> Fraction | None:
    """What to multiply a value of `mine` with to have it in the unit of `gold`; None if the units do not agree."""
    if not mine.unit or not gold.unit:
        return Fraction(1)  # one of them has none that we know: units aside
    (kind, factor), (other, size) = _measure(mine), _measure(gold)
    return factor / size if kind == other else None


def _measure(quantity: Quantity) -> tuple[tuple[str, int], Fraction]:
    """What a unit measures, as a kind and a power of it, and its size."""
    upper, slash, lower = quantity.unit.partition("/")
    kind, factor = _KIND[upper]
    if slash:
        return ("speed", quantity.power), factor / _KIND[lower][1] ** quantity.power
    power = quantity.power * (3 if kind == "volume" else 1)  # a litre is a length to the third
    return ("length" if kind == "volume" else kind, power), factor**quantity.power
