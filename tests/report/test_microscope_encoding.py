"""What the page holds is what was recorded: within the stated error, each text once, and inert in a script element."""

import base64
import json
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.report.microscope_encoding import UNRANKED, Texts, as_script, pack, payload
from rlvr.report.microscope_rows import Sample, Scores
from rlvr.report.tokens import pieces
from tests.report.folders import HOSTILE, WORDS, record_row
from tests.report.microscope_pages import noise, unpack, word_decoder
from tests.report.test_tokens import BYTES

WORDS_OF = lambda ids: "".join(WORDS[token] for token in ids)  # noqa: E731


@pytest.mark.parametrize(
    ("kind", "values", "stored"),
    [
        ("half", [0.5, -2.0], "0000 38c0"),  # 0x3800 is 2^-1, 0xc000 is -2^1; low bytes, then high bytes
        ("share", [0.0, 0.25, 1.0], "00 80 ff"),  # sqrt(0.25) * 255 = 127.5, to the even 128
        ("bits", [True, False, True, True], "0d"),  # 1 + 4 + 8
        ("byte", [255], "ff"),
        ("short", [258, 3], "0203 0100"),
        ("long", [65_538], "02000100"),
    ],
)
def test_columns_by_hand(kind: str, values: list[float], stored: str) -> None:
    column = pack(kind, np.array(values))
    assert column["kind"] == kind
    assert zlib.decompress(base64.b64decode(column["data"])) == bytes.fromhex(stored)


def test_half_precision_is_within_two_to_the_minus_eleven_and_keeps_what_is_missing() -> None:
    values = np.concatenate([10.0 ** np.linspace(-4, 1.5, 20_000), -(10.0 ** np.linspace(-4, 1.5, 20_000)), [np.nan]])
    found = unpack(pack("half", values))
    assert np.isnan(found[-1])
    assert np.all(np.abs(found[:-1] - values[:-1]) <= np.abs(values[:-1]) * 2.0**-11)
    tiny = np.linspace(0, 6.2e-5, 1001)
    assert np.max(np.abs(unpack(pack("half", tiny)) - tiny)) <= 2.0**-25


def test_shares_are_within_the_stated_error() -> None:
    values = np.concatenate([np.linspace(0, 1, 10_001), 10.0 ** np.linspace(-6, 0, 1000)])
    error = np.abs(unpack(pack("share", values)) - values)
    assert np.all(error <= (np.sqrt(values) + 1 / 1020) / 255 + 1e-15)
    assert error.max() > 0.003, "the bound says what happens"


@given(st.lists(st.booleans(), max_size=40))
def test_bits_round_trip(values: list[bool]) -> None:
    assert unpack(pack("bits", np.array(values, bool)), len(values)).tolist() == values


def test_kinds_and_shares_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'double'; expected half, share, bits, byte, short, long"):
        pack("double", np.zeros(1))
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            pack("share", np.array([0.5, wrong]))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_ends_the_script_element(text: str) -> None:
    script = as_script({text: [text, "</script><!--<script>"]})
    assert "<" not in script
    assert json.loads(script) == {text: [text, "</script><!--<script>"]}


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_script([float("nan")])


@pytest.mark.parametrize("text", ["plain text", "a\U0001f600b\n", "".join(HOSTILE[:3])])
def test_texts_are_the_pieces_of_the_whole(text: str) -> None:
    ids = BYTES.encode(text).ids
    decode = lambda chunk: BYTES.decode(chunk, skip_special_tokens=False)  # noqa: E731
    texts, wanted = Texts(decode), Texts(decode)
    assert [texts.texts[place] for place in texts.of(ids)] == [
        wanted.texts[wanted.place(piece)] for piece in pieces(decode, ids)
    ]
    assert len(set(texts.texts)) == len(texts.texts)


def sample(length: int = 3, **changes: object) -> Sample:
    """Tokens 1, 2, 3, ... with one alternative each that is not the sampled one, and one that is."""
    ids = np.arange(1, length + 1, dtype=np.int32)
    tops = np.stack([ids, np.zeros_like(ids)], 1)
    tops[0] = tops[0, ::-1]
    scores = Scores(
        np.linspace(0, 1, length), np.full(length, np.log(0.5)), "the record", tops,
        np.log(np.tile([0.5, 0.25], (length, 1))), "checkpoint-1",
    )  # fmt: skip
    facts = record_row(1, 0, [1])
    fields = {"facts": facts, "token_ids": ids, "kept": ids == 1, "advantages": np.full(length, -1.5), "ktae": None,
              "ratio": None, "scores": scores}  # fmt: skip
    return Sample(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_columns_of_a_completion_by_hand() -> None:
    data = payload([sample(), sample(ktae=np.array([1.0, 2.0, 3.0]), ratio=np.array([1.0, np.e, np.nan]))], WORDS_OF)
    columns = data["columns"]
    assert [data["texts"][place] for place in unpack(columns["text"])] == ["1", "+", "="] * 2
    assert unpack(columns["kept"], 6).tolist() == [True, False, False] * 2
    assert unpack(columns["advantage"]).tolist() == [-1.5] * 6
    assert unpack(columns["entropy"]).tolist() == [0.0, 0.5, 1.0] * 2
    assert unpack(columns["ktae"]).tolist()[3:] == [1.0, 2.0, 3.0]
    assert np.isnan(unpack(columns["ktae"])[:3]).all(), "the first completion has none"
    np.testing.assert_array_equal(unpack(columns["log_ratio"])[3:], np.array([0.0, 1.0, np.nan], np.float16))
    assert unpack(columns["rank"]).tolist() == [1, 0, 0] * 2
    top = [data["texts"][place] for place in unpack(columns["top"])]
    assert top[:6] == ["<|end|>", "1", "+", "<|end|>", "=", "<|end|>"]
    np.testing.assert_allclose(unpack(columns["top_p"])[:2], [0.5, 0.25], atol=0.003)
    first, second = data["completions"]
    assert (first["start"], second["start"], second["length"], first["kept"]) == (0, 3, 3, 1)
    assert (first["by"], first["top_by"], first["verdict"]) == (["the record"], ["checkpoint-1"], "correct")
    assert len(data["prompts"]) == 1
    assert data["against"] is None


def test_what_nobody_recorded_is_no_column_or_missing() -> None:
    data = payload([sample(scores=Scores()), sample(2)], WORDS_OF, label=None)
    assert {"ktae", "log_ratio", "b_entropy"} & data["columns"].keys() == set()
    assert np.isnan(unpack(data["columns"]["entropy"])[:3]).all()
    assert not np.isnan(unpack(data["columns"]["entropy"])[3:]).any()
    assert unpack(data["columns"]["rank"])[:3].tolist() == [UNRANKED] * 3
    assert unpack(data["columns"]["top_p"])[:6].tolist() == [0.0] * 6
    assert data["completions"][0]["by"] == [None]


def test_alternatives_below_a_thousandth_are_left_out() -> None:
    one = sample(1)
    chances = np.array([[0.9, 0.0011, 0.0009]])
    scores = replace(one.scores, top_ids=np.array([[1, 2, 3]]), top_logprobs=np.log(chances))
    data = payload([replace(one, scores=scores)], WORDS_OF)
    assert (unpack(data["columns"]["top_p"]) > 0).tolist() == [True, True, False]
    assert data["texts"] == ["1", "+"], "the text of what is left out takes no room"


def test_the_other_policy_has_columns_of_its_own() -> None:
    other = Scores(np.full(3, 2.0), np.full(3, -1.0), "B", np.full((3, 1), 4), np.full((3, 1), -0.5), "B")
    data = payload([sample(against=other)], WORDS_OF, label="\x00</script>")
    assert data["against"] == "\u2039U+0000\u203a</script>"
    assert unpack(data["columns"]["b_entropy"]).tolist() == [2.0] * 3
    top = unpack(data["columns"]["b_top"]).reshape(3, data["top"])
    assert [data["texts"][place] for place in top[:, 0]] == ["3"] * 3
    assert unpack(data["columns"]["b_top_p"]).reshape(3, 2)[:, 1].tolist() == [0.0] * 3, "one alternative only"
    assert data["completions"][0]["by"] == ["the record", "B"]


def test_an_empty_completion_and_many_texts_have_their_place() -> None:
    empty = sample(1, token_ids=np.zeros(0, np.int32), kept=np.zeros(0, bool), advantages=np.zeros(0), scores=Scores())
    long = sample(70_000)
    data = payload([empty, long], lambda ids: "".join(f"<{token}>" for token in ids))
    assert data["columns"]["text"]["kind"] == "long"
    assert unpack(data["columns"]["text"])[-1] == 69_999
    assert [one["length"] for one in data["completions"]] == [0, 70_000]


@pytest.mark.parametrize(("realistic", "against"), [(True, True), (False, False)])
def test_two_hundred_completions_of_a_thousand_tokens_stay_small(realistic: bool, against: bool) -> None:
    # Every optional column is there. Pure noise, which no deflating makes smaller, is the worst that can come.
    samples = noise(200, 1000, realistic=realistic, against=against)
    started = time.process_time()
    script = as_script(payload(samples, word_decoder(), "B" if against else None))
    assert len(script.encode()) < 9_500_000, "the page around it has less than 0.1 MB"
    assert time.process_time() - started < 60
