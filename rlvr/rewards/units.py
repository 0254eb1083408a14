"""Units after a number: taken off, and compared where both sides have one."""

import re
from dataclasses import dataclass
from functools import lru_cache

_FACTORS = {
    "length": {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3, "nm": 1e-9, "in": 0.0254, "ft": 0.3048, "yd": 0.9144},
    "mass": {"mg": 1e-6, "g": 1e-3, "kg": 1.0, "lb": 0.45359237, "oz": 0.028349523125},
    "time": {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0, "week": 604800.0, "year": 31557600.0},
    "money": {"cent": 0.01, "dollar": 1.0},
    "angle": {"degree": 1.0, "radian": 57.29577951308232},
    "morning": {"am": 1.0},
    "evening": {"pm": 1.0},
}
_KIND = {unit: (kind, factor) for kind, units in _FACTORS.items() for unit, factor in units.items()}
_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "g": "gram", "kg": "kilogram", "mg": "milligram",
    "lb": "pound lbs", "oz": "ounce", "s": "second sec", "min": "minute mins", "h": "hour hr", "day": "day",
    "week": "week", "month": "month", "year": "year yr", "cent": "cent", "dollar": "dollar usd", "l": "liter litre",
    "ml": "milliliter", "mph": "mph", "degree": "degree deg", "radian": "radian rad", "percent": "percent pct",
    "am": "AM am", "pm": "PM pm",
    "unit": "unit", "square unit": "", "": "ways way people square cubic point",
}  # fmt: skip
_ALIAS = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_BARE = frozenset(
    [
        "mm",
        "cm",
        "km",
        "nm",
        "ft",
        "kg",
        "mg",
        "lb",
        "lbs",
        "oz",
        "mph",
        "min",
        "hr",
        "hrs",
        "sec",
        "inch",
        "inches",
        "foot",
        "feet",
        "meter",
        "meters",
        "metre",
        "metres",
        "mile",
        "miles",
        "hour",
        "hours",
        "minute",
        "minutes",
        "second",
        "seconds",
        "day",
        "days",
        "week",
        "weeks",
        "month",
        "months",
        "year",
        "years",
        "dollar",
        "dollars",
        "cent",
        "cents",
        "degree",
        "degrees",
        "radians",
        "rad",
        "percent",
        "unit",
        "units",
        "square",
        "cubic",
        "sq",
        "gram",
        "grams",
        "liter",
        "liters",
        "litre",
        "litres",
        "mL",
        "ml",
        "kJ",
        "kW",
        "Hz",
        "eV",
        "mol",
        "km/h",
        "m/s",
        "ways",
        "way",
        "people",
        "pounds",
        "yards",
        "yard",
        "AM",
        "PM",
        "am",
        "pm",
        "kmh",
        "kPa",
        "Pa",
    ]
)
_TEXT_TAIL = re.compile(r"(?:[\s/]|\\cdot(?![a-z]))*\\text\s*\{([^{}]*)\}\s*(\^\s*(?:\{\s*-?\d\s*\}|-?\d))?\s*\.?$")
_WORD_TAIL = re.compile(r"(?<=[\d)}])\s*((?:[A-Za-z]+(?:/[A-Za-z]+)?\s*)+)(\^\s*(?:\{\s*\d\s*\}|\d))?$")
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
_REMARK = re.compile(r"\s*\\text\s*\{\s*\((?:[^{}()]*)\)?\s*\}\s*$")
_APPROXIMATION = re.compile(
    r"\s*(?:\\text\s*\{\s*)?\(?\s*(?:\\text\s*\{\s*)?\(?(?:or )?(?:approximately|approx\.?|about)[\s}]"
)


@dataclass(frozen=True)
class Quantity:
    """A value and its unit.

    Attributes:
        value: the text of the value.
        unit: its canonical unit, `%`, `degree`, or empty.
        power: the power of the unit.
    """

    value: str
    unit: str = ""
    power: int = 1


@lru_cache(maxsize=4096)
def quantity(text: str) -> Quantity:
    r"""A normalised formula without its unit: `5 \text{cm}`, `5 cm^2`, `50\%`, `30^{\circ}`, `18.90 \text{dollars}`."""
    text = _without_remark(text)
    names: list[str] = []
    power = 1
    for _ in range(4):
        tail = _TEXT_TAIL.search(text)
        if tail is None or _HEDGE.search(tail[1]) or not text[: tail.start()].strip():
            break
        text = text[: tail.start()].strip()
        names.append(tail[1])
        power = _power(tail[2]) if tail[2] else power
    if not names:
        text, names, power = _bare(text)
    for pattern, unit in ((_PERCENT_TAIL, "%"), (_DEGREE_TAIL, "degree")):
        found = pattern.search(text)
        if found and text[: found.start()].strip() and not (unit == "degree" and _FUNCTION.search(text)):
            return Quantity(text[: found.start()].strip(), unit)
    unit, power = _canonical(" ".join(reversed(names)), power)
    return Quantity(text, unit, power)


def _bare(text: str) -> tuple[str, list[str], int]:
    """A unit in plain letters, `5 cm`: only names that are no product of letters."""
    tail = _WORD_TAIL.search(text)
    if tail and all(word in _BARE for word in tail[1].split()):
        return text[: tail.start()].strip(), [tail[1]], _power(tail[2])
    return text, [], 1


def letter_unit(text: str) -> str:
    r"""A value without units in single letters or fractions, `5 m`, `5 m s^{-1}`; for golds that are plain numbers."""
    return _LETTER_TAIL.sub("", _FRACTION_TAIL.sub("", text)).strip() or text


def _without_remark(text: str) -> str:
    """Without a remark in brackets at the end, `\\text{ (approximately } 0.5)`."""
    remark = _REMARK.search(text)
    if remark and remark.start() and not _HEDGE.search(remark[0]):
        return text[: remark.start()].strip()
    approximation = _APPROXIMATION.search(text)
    return text[: approximation.start()].strip() if approximation and approximation.start() else text


def _power(text: str | None) -> int:
    digits = [sign for sign in text or "" if sign.isdigit()]
    return int(digits[0]) if digits else 1


def _canonical(name: str, power: int) -> tuple[str, int]:
    words = name.lower().replace(".", "").split() if len(name.split()) > 1 or len(name) > 2 else name.split()
    if words and words[0] in ("square", "sq", "cubic", "cu"):
        power = 2 if words[0].startswith("s") else 3
        words = words[1:]
    unit = " ".join(words)
    for spelling in (unit, unit.removesuffix("s")):
        if spelling in _ALIAS:
            return ("%" if _ALIAS[spelling] == "percent" else _ALIAS[spelling]), power
    return (unit, power) if unit in _KIND else ("", 1)


def ratio(mine: Quantity, gold: Quantity) -> float | None:
    """What to multiply a value of `mine` with to have it in the unit of `gold`; None if the units do not agree."""
    if mine.unit == gold.unit and mine.power == gold.power:
        return 1.0
    if mine.unit not in _KIND or gold.unit not in _KIND:
        return 1.0  # one of them has none that we know: units aside
    kind, factor = _KIND[mine.unit]
    other, scale = _KIND[gold.unit]
    return (factor / scale) ** mine.power if kind == other and mine.power == gold.power else None
