"""The drawings: inline, themable, with text that is text."""

import re
from xml.etree import ElementTree

from rlvr.report.drawing import MOST_POINTS, STAND_INS, Line, Panel, bin_size, draw, thin

STEPS = [float(step) for step in range(1, 31)]


def drawing(name: str = "one") -> str:
    lines = [
        Line("up <&$x$", STEPS, [step / 30 for step in STEPS], "a"),
        Line("down", STEPS, [1 - step / 31 for step in STEPS], "b", "dashed", low=[0.0] * 30, high=[1.0] * 30),
        Line("measured", [0.0, 30.0], [0.2, 0.9], "c", low=[0.1, 0.8], high=[0.3, 1.0], points=True),
    ]
    stacked = [Line("rest", STEPS, [1.0] * 30, "d"), Line("work", STEPS, [2.0] * 30, "e")]
    panels = [
        Panel("share", lines, share=True), Panel("nats", [Line("log", STEPS, STEPS)], log=True),
        Panel("seconds", stacked, stacked=True), Panel("one", [Line("point", [3.0], [-1.0])]),
    ]  # fmt: skip
    return draw(panels, name, 'a "title"')


def test_a_drawing_is_one_element_with_texts_and_a_name() -> None:
    root = ElementTree.fromstring(drawing())
    assert root.tag.endswith("svg")
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'a "title"'
    assert root.get("viewBox")
    assert root.get("width") is None
    texts = {element.text for element in root.iter() if element.tag.endswith("}text")}
    assert {"up <&$x$", "down", "measured", "rest", "work", "optimizer step", "nats", "100%"} <= texts


def test_colours_are_the_pages_and_nothing_points_outside() -> None:
    svg = drawing()
    assert all(stand_in not in svg for stand_in in STAND_INS.values())
    assert {"var(--ink)", "var(--a)", "var(--b)", "var(--c)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert set(re.findall(r'(\S+)="https?:', svg)) == {"xmlns", "xmlns:xlink"}
    assert "<metadata" not in svg
    assert "@import" not in svg
    assert "<image" not in svg


def test_identifiers_are_unique_in_a_page_and_every_reference_resolves() -> None:
    both = drawing("one") + drawing("two")
    names = re.findall(r'\bid="([^"]+)"', both)
    assert len(names) == len(set(names))
    targets = re.findall(r'href="#([^"]+)"', both) + re.findall(r"url\(#([^)]+)\)", both)
    assert targets
    assert set(targets) <= set(names)


def test_a_drawing_is_the_same_twice() -> None:
    assert drawing() == drawing()


def test_long_lines_are_averaged() -> None:
    assert bin_size(MOST_POINTS) == 1
    assert thin([1.0, 2.0]) == [1.0, 2.0]
    long = [float(index) for index in range(MOST_POINTS * 10)]
    assert len(thin(long)) == MOST_POINTS
    assert thin(long)[0] == 4.5
    svg = draw([Panel("x", [Line("long", long, long)])], "long", "long")
    assert len(svg) < 100_000
