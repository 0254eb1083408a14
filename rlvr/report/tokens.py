"""Sampled tokens as the page shows them: their text, their entropy, whether they carry gradient."""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from pathlib import Path
from typing import Any

Decode = Callable[[list[int]], str]
"""Token ids -> text, special tokens included."""

ENTROPY_EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0)
"""Nats at which a token's background gets stronger; fixed, so that pages of different runs compare."""

INVISIBLE = {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}
"""Unicode categories that draw nothing, or that turn what stands around them."""

BROKEN = "\N{REPLACEMENT CHARACTER}"
WINDOW = 8
"""Tokens decoded together: more than one character's bytes can take."""


@dataclass(frozen=True)
class Token:
    """A sampled token.

    Attributes:
        text: what to show; never empty, never invisible.
        kept: whether it carries gradient.
        level: of its entropy, 0 to `len(ENTROPY_EDGES)`.
        details: its numbers, for the reader who points at it.
    """

    text: str
    kept: bool
    level: int
    details: str


@dataclass(frozen=True)
class Decoder:
    """Turns token ids into texts.

    Attributes:
        decode: of the tokenizer; None where none could be loaded.
        source: where it was found, or why there is none; a sentence's part.
    """

    decode: Decode | None
    source: str


def visible(text: Any) -> str:
    """The text with everything invisible made visible; line breaks and tabs stay.

    Other control characters, directional marks, zero-width characters, surrogates and unassigned characters become
    their code in brackets. Escaping for HTML is the template's.
    """
    return "".join(_visible_character(character) for character in str(text))


def _visible_character(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in INVISIBLE:
        return character
    return f"\u2039U+{ord(character):04X}\u203a"


def token_text(piece: str) -> str:
    """The visible text of one token: line breaks and tabs get a sign."""
    if not piece:
        return "\u2026"
    return visible(piece).replace("\n", "\u21b5\n").replace("\t", "\u21e5\t")


def pieces(decode: Decode, token_ids: Sequence[int]) -> list[str]:
    """The text of each token; together they are the text of all.

    A character whose bytes are spread over several tokens belongs to the last of them, the others are empty.

    Args:
        decode: of a tokenizer.
        token_ids: in their order.
    """
    found: list[str] = []
    start = done = 0  # decoded together since `start`; given out up to `done`
    for end in range(1, len(token_ids) + 1):
        before = decode(list(token_ids[start:done])) if done > start else ""
        text = decode(list(token_ids[start:end]))
        unfinished = text.endswith(BROKEN) and end - done < WINDOW and end < len(token_ids)
        if unfinished:
            found.append("")
            continue
        found.append(text[len(before) :])
        start, done = done, end
    return found


def entropy_level(entropy: float) -> int:
    """The step of `ENTROPY_EDGES` that an entropy (nats) reaches."""
    return bisect_right(ENTROPY_EDGES, entropy)


def entropy_legend() -> list[tuple[int, str]]:
    """(level, range in nats), from the weakest."""
    edges = [f"{edge:g}" for edge in ENTROPY_EDGES]
    middle = [f"{low}\u2013{high}" for low, high in pairwise(edges)]
    return list(enumerate([f"< {edges[0]}", *middle, f"\u2265 {edges[-1]}"]))


def tokens_of(row: dict[str, Any], decode: Decode | None, most: int) -> list[Token]:
    """The first tokens of a recorded completion.

    Args:
        row: of a record, see `rlvr.rollouts.record`.
        decode: of the run's tokenizer; the ids are shown where there is none.
        most: tokens at most.
    """
    ids = list(row["token_ids"])[:most]
    texts = [str(token) for token in ids] if decode is None else pieces(decode, ids)
    unscored = [None] * len(ids)
    columns = (row["entropies"] or unscored, row["logprobs"] or unscored, row["advantages"], row["kept"])
    numbers = zip(*(column[: len(ids)] for column in columns), strict=True)
    return [
        Token(
            token_text(text),
            bool(kept),
            entropy_level(entropy or 0.0),
            f"{_scored(entropy, logprob)}, advantage {advantage:+.3f}, {'kept' if kept else 'dropped'}",
        )
        for text, (entropy, logprob, advantage, kept) in zip(texts, numbers, strict=True)
    ]


def _scored(entropy: float | None, logprob: float | None) -> str:
    """What the sampling policy said of a token; nothing where its row neither voted nor trained."""
    if entropy is None or logprob is None:
        return "not scored"
    return f"{entropy:.3f} nats, p {exp(min(logprob, 0.0)):.3f}"


def load_decoder(places: Sequence[tuple[str, str | Path]]) -> Decoder:
    """The tokenizer of the first place that has one; nothing is downloaded and no foreign code runs.

    Args:
        places: (name to show, folder or hub id), the best first.
    """
    for name, place in places:
        try:
            return Decoder(_decode_of(place), name)
        except Exception:  # tokenizers raise bare Exception for a broken file, transformers several kinds
            continue
    tried = ", ".join(name for name, _ in places) or "nowhere to look"
    return Decoder(None, f"no tokenizer could be loaded without a network (tried: {tried})")


def _decode_of(place: str | Path) -> Decode:
    file = Path(place) / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        return lambda ids: tokenizer.decode(ids, skip_special_tokens=False)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
    return lambda ids: str(loaded.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
