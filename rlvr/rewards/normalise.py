r"""Bring an answer into plain LaTeX: ASCII signs, no layout, no fonts, digits in one piece. Standard library only."""

# ruff: noqa: RUF001 - the tables below list the signs that models write
import re
import unicodedata
from functools import lru_cache

INVISIBLE = dict.fromkeys([0, *range(0x200B, 0x2010), 0x2060, 0x2061, 0x2062, 0x2063, 0x2064, 0xFEFF, 0xAD, 0xFE0F])
"""Characters that show nothing and mean nothing: stripped, not rejected."""

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
}  # fmt: skip
_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "±": r"\pm ", "∓": r"\mp ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "°": r"^{\circ}", "º": r"^{\circ}", "˚": r"^{\circ}", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"',
    "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "∠": r"\angle ", "△": r"\triangle ", "ϕ": r"\phi ", "ϵ": r"\epsilon ",
    "√": r"\sqrt ", "∛": r"\sqrt[3] ", "…": "...", "%": r"\%", "Ω": r"\Omega ", "Δ": r"\Delta ", "Σ": r"\Sigma ",
    **{letter: f"\\{name} " for letter, name in _GREEK.items()},
}  # fmt: skip
_TABLE = str.maketrans(_SIGNS)
_SUPER = {ord(sign): plain for sign, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True)}
_SUB = {ord(sign): plain for sign, plain in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)}
_SUPERS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBS = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")

_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:!> \n\t]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|(?:thin|med|thick)space(?![a-zA-Z]))|[~\s]"
)
_LAYOUT = re.compile(
    r"\\(?:left|right|[bB]ig{1,2}[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|mathop|mathopen|mathclose"
    r"|ensuremath|middle|rm|bf|it|mathstrut|strut|hfill|centering|boldmath|Large|large|huge|Huge|qed)(?![a-zA-Z])\.?"
)
_DROPPED = re.compile(r"\\(?:hspace|vspace|phantom|hphantom|vphantom|tag|label|color)\*?\{[^{}]*\}")
_FONT = re.compile(
    r"\\(text|textbf|textrm|textit|textsf|texttt|textnormal|textup|mbox|hbox|emph|mathrm|mathbf|mathit|mathsf|mathtt"
    r"|mathnormal|boldsymbol|bm|pmb|operatorname\*?|mathcal|mathscr|rm|bf)\s*\{([^{}]*)\}"
)
_COUNTED = re.compile(r"([-+]?\d[\d.,/]*)\s*([a-zA-Z].*)")
_LEAD = re.compile(r"^(?:\\text\{(?:the )?(?:final )?answer(?: is)?:?\}\s*:?|(?:np|math)\.(?=[a-z]))\s*", re.IGNORECASE)
_MATH_FONTS = ("mathrm", "mathbf", "mathit", "mathsf", "mathtt", "mathnormal", "boldsymbol", "bm", "pmb", "rm", "bf")
_WRAPPER = re.compile(r"\\(?:boxed|fbox|underline|mathbin|mathrel|textcolor\{[^{}]*\})\s*\{([^{}]*)\}")
_RENAMED = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\dbinom": r"\binom", r"\tbinom": r"\binom",
    r"\leq": r"\le", r"\geq": r"\ge", r"\leqslant": r"\le", r"\geqslant": r"\ge", r"\neq": r"\ne", r"\lt": "<",
    r"\gt": ">", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\varnothing": r"\emptyset",
    r"\degree": r"^{\circ}", r"\bullet": r"\cdot", r"\ast": "*", r"\times": r"\times", r"\lvert": "|", r"\rvert": "|",
    r"\vert": "|", r"\mid": "|", r"\cr": r"\\", r"\varepsilon": r"\epsilon", r"\varphi": r"\phi", r"\dots": "...",
    r"\ldots": "...", r"\cdots": "...", r"\div": "/", r"\colon": ":", r"\textpi": r"\pi", r"\infin": r"\infty",
    r"\thickapprox": r"\approx", r"\simeq": r"\approx", r"\approxeq": r"\approx", r"\lparen": "(", r"\rparen": ")",
    r"\percent": r"\%", r"\backslash": r"\setminus", r"\land": r"\text{and}", r"\lor": r"\text{or}",
    r"\textdollar": "", r"\imath": "i", r"\dollar": "", r"\arccos": r"\arccos", r"\euro": "", r"\pounds": "",
    r"\textstyle": "", r"\prime": "'", r"\cup": r"\cup", r"\bigcup": r"\cup", r"\text": r"\text",
}  # fmt: skip
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_DOUBLED = re.compile(r"\\\\(?=(?:frac|dfrac|sqrt|pi|text|left|right|times|cdot|infty|pm|sin|cos|log|ln)(?![a-z]))")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\{\s*\^\s*\\circ\s*\}")
_PRIMES = re.compile(r"\^\s*(?:\{\s*((?:'\s*)+)\}|('))")
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:(?:,?\s?\\!|\{,\}(?:\\!)?|\\[,;: ]|~)\s*\d{3})+)(?![\d])")
_SPACED = re.compile(r"(?<![\d.,/}])(\d{1,3})((?: \d{3})+)(?![\d/])")
_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d+)\{,\}(\d+)(?!\d|\{,\})")
_NOT_DIGITS = re.compile(r"\D+")
_DOLLARS = re.compile(r"\\\$|[$€£¥]|\\[()\[\]](?![a-zA-Z])")
_PLAIN = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")


@lru_cache(maxsize=8192)
def normalise(text: str) -> str:
    """The same answer in the one spelling that the rest of the grader reads. Linear in the length of the text."""
    if _PLAIN.fullmatch(text):
        return text
    text = _ascii(text)
    text = _THOUSANDS.sub(_joined, text)
    text = _DECIMAL_COMMA.sub(r"\1.\2", text).replace("{,}", ",")
    text = _DROPPED.sub("", text)
    text = _DOUBLED.sub(r"\\", text) if "matrix" not in text and "array" not in text else text
    text = _LAYOUT.sub(" ", _SPACES.sub(_space, text))
    text = _fonts(text)
    text = _COMMAND.sub(lambda found: _RENAMED.get(found[0], found[0]), text)
    text = _PRIMES.sub(lambda found: (found[1] or found[2]).replace(" ", ""), _DEGREES.sub(r"^{\\circ}", text))
    text = _SPACED.sub(_joined, _DOLLARS.sub(" ", text))
    return _trimmed(_LEAD.sub("", " ".join(text.split())))


def _ascii(text: str) -> str:
    text = text.translate(INVISIBLE)
    if text.isascii():
        return text.replace("%", r"\%").replace(r"\\%", r"\%")
    text = _SUPERS.sub(lambda found: "^{" + found[0].translate(_SUPER) + "}", text)
    text = _SUBS.sub(lambda found: "_{" + found[0].translate(_SUB) + "}", text)
    text = _VULGAR.sub(_fraction, text).replace("º", "°")
    text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    return text.replace(r"\\%", r"\%")


def _fraction(found: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", found[0]).partition("⁄")
    return f"\\frac{{{top}}}{{{bottom}}}"


def _joined(found: re.Match[str]) -> str:
    return found[1] + _NOT_DIGITS.sub("", found[2])


def _space(found: re.Match[str]) -> str:
    return "" if found[0] == r"\!" else " "


def _fonts(text: str) -> str:
    """Fonts and frames off, from the inside out; words stay words, as `\\text{...}`, and letters become letters."""
    for _ in range(4):
        before = text
        text = _FONT.sub(_font, _WRAPPER.sub(r"{\1}", text))
        if text == before:
            break
    return text


def _font(found: re.Match[str]) -> str:
    name, inner = found[1], " ".join(found[2].split())
    if name.startswith("operatorname"):
        return f"\\{inner} " if inner.isalpha() else inner
    if not any(sign.isalpha() for sign in inner):
        return f" {inner} "
    counted = _COUNTED.fullmatch(inner)
    if counted:
        return f" {counted[1]} \\text{{{counted[2]}}}"
    if name in _MATH_FONTS and (len(inner) == 1 or not inner[0].isalpha()):
        return f"{{{inner}}}" if len(inner) > 1 else f" {inner} "
    if name in ("mathcal", "mathscr"):
        return f" {inner} "
    edge = " " if found[2] != found[2].strip() else ""
    return f"\\text{{{inner}}}{edge}" if name != "text" or edge else f"\\text{{{inner}}}"


def _trimmed(text: str) -> str:
    """Without what ends a sentence, and without braces or empty marks around the whole."""
    while True:
        before = text
        text = _unpunctuated(text.strip()).strip().removesuffix("\\\\").strip()
        if text.startswith("{") and text.endswith("}") and _closes_last(text):
            text = text[1:-1]
        if text == before:
            return text


def _unpunctuated(text: str) -> str:
    """Without the points and commas at its end; three points go on, `1, 2, ...`, and stay."""
    bare = text.rstrip(".;,:")
    goes_on = text.find("...", len(bare))
    return bare if goes_on < 0 else text[: goes_on + 3]


def _closes_last(text: str) -> bool:
    depth = 0
    for at, sign in enumerate(text):
        if sign in "{}" and (at == 0 or text[at - 1] != "\\"):
            depth += 1 if sign == "{" else -1
            if depth == 0:
                return at == len(text) - 1
    return False


_AFTER_COMMAND = re.compile(r"(\\[a-zA-Z]+) (?=[a-zA-Z])")
_SINGLE = re.compile(r"([\^_])([0-9a-zA-Z])(?![0-9.])")
_BETWEEN_DIGITS = re.compile(r"(?<=\d) (?=\d)")


@lru_cache(maxsize=8192)
def compact(text: str) -> str:
    """A normalised answer without the blanks that mean nothing, for the comparison of texts."""
    text = _BETWEEN_DIGITS.sub("\0", _AFTER_COMMAND.sub("\\1\0", text))
    return _SINGLE.sub(r"\1{\2}", text.replace(" ", "").replace("\0", " "))
