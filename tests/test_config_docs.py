"""docs/config.md against the schema: up to date, and no field without a meaning."""

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from rlvr.config.convert import config_fields
from rlvr.config.evaluation import EvaluationConfig
from rlvr.config.schema import RunConfig
from rlvr.registry import load_variants
from rlvr.trainer.owned import ALGORITHM_OWNS, RUN_OWNS
from scripts import config_docs


def test_the_page_is_what_the_schema_says() -> None:
    assert config_docs.PAGE.read_text() == config_docs.page(), "run make docs"


def test_every_section_and_group_has_a_place() -> None:
    sections = set()
    for name, cls in typing.get_type_hints(RunConfig).items():
        nested = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
        sections |= {name, *(f"{name}.{inner}" for inner, kind in nested.items() if dataclasses.is_dataclass(kind))}
    assert sections == {*config_docs.SECTIONS, *config_docs.GROUPS}


def test_every_field_stands_on_the_page_with_its_meaning() -> None:
    text = config_docs.PAGE.read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \|.* (\S.*) \|$", text, flags=re.MULTILINE))
    expected = [f"{group}.{choice}.{name}" if group == "reward" else f"{group}.{name}"
                for group, known in load_variants().items() for choice, cls in known.items()
                for name in config_fields(cls)]  # fmt: skip
    expected += [f"trl.{name}" for name in {**ALGORITHM_OWNS, **RUN_OWNS}]
    expected += [
        name for name, kind in typing.get_type_hints(EvaluationConfig).items() if not dataclasses.is_dataclass(kind)
    ]
    assert len(expected) > 100
    assert [key for key in expected if not rows.get(key, "").strip()] == []


def test_meanings_are_read_over_several_lines_and_end_with_their_part() -> None:
    found = config_docs.meanings_in(
        """What it is.

        Attributes:
            one: first line,
                and a second; not: an entry.
            two: short.

        Raises:
            three: no attribute.
        """
    )
    assert found == {"one": "first line, and a second; not: an entry.", "two": "short."}


def test_a_field_takes_the_meaning_of_a_base_and_an_undescribed_one_is_named() -> None:
    class Base:
        """B.

        Attributes:
            told: by the base; None for nothing.
        """

    class Child(Base):
        """C."""

    assert config_docs.meaning_of(Child, "told") == "by the base; null for nothing."
    with pytest.raises(ValueError, match=r"Child\.untold has no meaning"):
        config_docs.meaning_of(Child, "untold")


def test_a_preset_without_a_comment_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bare.yaml"
    path.write_text("# @package _global_\nrun: {seed: 1}\n")
    with pytest.raises(ValueError, match=r"bare\.yaml does not say what it is"):
        config_docs.first_comment(path)


def test_types_and_values_are_written_as_one_types_them() -> None:
    assert config_docs.type_name(int | None) == "whole number or null"
    assert config_docs.type_name(list[str]) == "list of texts"
    assert [config_docs.value_text(value) for value in (None, True, "", [], ["a", "b"], 0.2)] == [
        "null", "true", "''", "[]", "[a, b]", "0.2",
    ]  # fmt: skip


def test_check_says_in_one_line_that_the_file_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(config_docs, "PAGE", tmp_path / "config.md")
    assert config_docs.main(["--check"]) == 1
    assert config_docs.main([]) == 0
    assert config_docs.main(["--check"]) == 0
    config_docs.PAGE.write_text("old")
    assert config_docs.main(["--check"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said == ["config_docs: docs/config.md is not what the schema says; run make docs"] * 2
