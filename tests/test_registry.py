"""Variants by name."""

from dataclasses import dataclass

import pytest

from rlvr import registry
from rlvr.registry import load_variants, variant


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> dict:
    known: dict = {}
    monkeypatch.setattr(registry, "VARIANTS", known)
    return known


def test_a_class_is_found_under_its_group_and_name_and_knows_both(variants: dict) -> None:
    @variant("advantage", "mine")
    @dataclass
    class Mine:
        pass

    assert variants == {"advantage": {"mine": Mine}}
    assert (Mine.group, Mine.name) == ("advantage", "mine")


def test_a_name_that_is_taken_is_refused_even_by_a_class_of_the_same_name(variants: dict) -> None:
    first, second = type("Twin", (), {"__module__": "a"}), type("Twin", (), {"__module__": "b"})
    variant("selection", "twin")(first)
    with pytest.raises(ValueError, match=r"selection=twin is already a.Twin; choose another name for b.Twin"):
        variant("selection", "twin")(second)
    assert variants["selection"]["twin"] is first


def test_a_module_that_is_loaded_again_replaces_its_classes(variants: dict) -> None:
    first, again = type("Same", (), {"__module__": "a"}), type("Same", (), {"__module__": "a"})
    variant("selection", "same")(first)
    variant("selection", "same")(again)
    assert variants["selection"]["same"] is again


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"variant group 'advantages' is unknown; expected one of \['advantage', "):
        variant("advantages", "mine")


def test_every_variant_file_is_found_without_a_list_of_them() -> None:
    found = load_variants()
    assert {"grpo", "dr_grpo", "rloo"} <= found["advantage"].keys()
    assert {"all", "top_entropy", "bottom_entropy", "random"} <= found["selection"].keys()
    assert "clipped" in found["objective"]
    for group, classes in found.items():
        for name, cls in classes.items():
            assert (cls.group, cls.name) == (group, name)
