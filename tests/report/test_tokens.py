"""Token texts: nothing invisible, nothing lost, and where the tokenizer comes from."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rlvr.report.tokens import (
    ENTROPY_EDGES,
    entropy_legend,
    entropy_level,
    load_decoder,
    pieces,
    token_text,
    tokens_of,
    visible,
)
from tests.report.folders import WORDS, record_row, write_tokenizer


def bytes_tokenizer() -> Tokenizer:
    """A token per byte, as byte-level BPE without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


BYTES = bytes_tokenizer()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9 \u4e2d", "plain \u00e9 \u4e2d"),
        ("a\nb\tc", "a\nb\tc"),
        ("\x00\x1b[31m\r", "\u2039U+0000\u203a\u2039U+001B\u203a[31m\u2039U+000D\u203a"),
        ("\x7f", "\u2039U+007F\u203a"),
        ("\u202e\u200b", "\u2039U+202E\u203a\u2039U+200B\u203a"),
        ("\ud800", "\u2039U+D800\u203a"),
        ("<b>&", "<b>&"),
    ],
)
def test_what_is_invisible_becomes_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_a_visible_text_can_be_written_and_holds_no_control(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert all(character in "\n\t" or ord(character) >= 0x20 for character in shown)


def test_a_token_is_never_empty() -> None:
    assert token_text("") == "\u2026"
    assert token_text("a\n") == "a\u21b5\n"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=40))
def test_pieces_of_a_byte_tokenizer_together_are_the_text(text: str) -> None:
    ids = BYTES.encode(text).ids
    found = pieces(lambda chunk: BYTES.decode(chunk, skip_special_tokens=False), ids)
    assert len(found) == len(ids)
    assert "".join(found) == text


def test_a_character_of_several_tokens_belongs_to_the_last() -> None:
    ids = BYTES.encode("a\U0001f600b").ids
    assert pieces(lambda chunk: BYTES.decode(chunk), ids) == ["a", "", "", "", "\U0001f600", "b"]


def test_bytes_that_are_no_text_do_not_hold_back_the_rest() -> None:
    stray = BYTES.encode("\U0001f600").ids[1]
    found = pieces(lambda chunk: BYTES.decode(chunk), [stray] * 20 + BYTES.encode("end").ids)
    assert "".join(found).endswith("end")
    assert "\ufffd" in "".join(found)


def test_levels_follow_the_edges_and_the_legend_names_them() -> None:
    assert [entropy_level(value) for value in (0.0, 0.01, 0.05, 5.0)] == [0, 1, 2, len(ENTROPY_EDGES)]
    legend = entropy_legend()
    assert [level for level, _ in legend] == list(range(len(ENTROPY_EDGES) + 1))
    assert legend[0][1] == "< 0.01"
    assert legend[1][1] == "0.01\u20130.03"
    assert legend[-1][1] == "\u2265 2"


def test_a_token_carries_its_numbers() -> None:
    row = record_row(1, 0, [1, 2], entropies=[0.5, 0.0], logprobs=[-0.6931472, 0.0], kept=[True, False])
    first, second = tokens_of(row, lambda ids: "".join(WORDS[token] for token in ids), most=9)
    assert (first.text, first.kept, first.level) == ("1", True, 4)
    assert first.details == "0.500 nats, p 0.500, advantage +1.500, kept"
    assert (second.text, second.kept, second.level) == ("+", False, 0)
    assert len(tokens_of(row, None, most=1)) == 1


def test_without_a_tokenizer_ids_are_shown() -> None:
    assert [token.text for token in tokens_of(record_row(1, 0, [4, 2]), None, most=9)] == ["4", "2"]


def test_the_first_place_with_a_tokenizer_is_taken(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    good = write_tokenizer(tmp_path / "good")
    found = load_decoder([("broken", tmp_path / "broken"), ("none", tmp_path / "none"), ("good", good)])
    assert found.source == "good"
    assert found.decode is not None
    assert found.decode([1, 2, 0]) == "1+<|end|>"


def test_where_no_tokenizer_is_found_the_places_are_named(tmp_path: Path) -> None:
    found = load_decoder([("the checkpoint", tmp_path), ("model.path", "no-such-owner/no-such-model")])
    assert found.decode is None
    assert "tried: the checkpoint, model.path" in found.source


def test_a_row_that_was_not_scored_says_so_and_has_no_entropy_colour() -> None:
    row = record_row(1, 0, [1, 2], entropies=None, logprobs=None, kept=[False, False])
    tokens = tokens_of(row, None, 10)
    assert [token.level for token in tokens] == [0, 0]
    assert all(token.details.startswith("not scored") for token in tokens)
