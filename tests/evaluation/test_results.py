"""`rlvr results`: numbers on paper, what may stand in one table, and files that are written whole."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rlvr.errors import UserError
from rlvr.evaluation.choosing import (
    choose,
    find_in_ledger,
    merge_seeds,
    protocol_differences,
    require_one_protocol,
    sections,
    short_names,
)
from rlvr.evaluation.intervals import mean_interval
from rlvr.evaluation.results import summarise, summarise_together
from rlvr.evaluation.results_table import read_sections, sheet, show_results
from rlvr.evaluation.scores import read_ledger
from rlvr.evaluation.wording import (
    Sheet,
    csv_text,
    markdown_table,
    markdown_text,
    p_text,
    protocol_facts,
    rich_tables,
    write_whole,
)
from rlvr.report.evaluation_figures import accuracy_figures, pass_figures
from tests.evaluation.made_scores import made, protocol_of, run_of, written


def test_a_summary_on_paper() -> None:
    # Right of four: 4, 2, 1, 0. avg = (1 + 1/2 + 1/4 + 0) / 4 = 7/16.
    # pass@2 = 1 - C(n-c,2)/C(n,2): 1, 5/6, 1/2, 0; mean 7/12. pass@4: 1, 1, 1, 0; mean 3/4.
    # maj@4 with wrong answers that all differ: 1, 1, tie of four classes 1/4, 0; mean 9/16.
    found = summarise(made([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]))
    assert found.avg.mean == 7 / 16
    assert set(found.pass_at) == set(found.maj_at) == {1, 2, 4}
    assert [found.pass_at[k].mean for k in (1, 2, 4)] == pytest.approx([7 / 16, 7 / 12, 3 / 4])
    assert found.maj_at[4].mean == pytest.approx(9 / 16)
    assert found.tokens == 11.5  # 10, 11, 12, 13
    assert (found.asked, found.samples, found.timeouts, found.crashes) == ("4", "4", 0, 0)
    assert found.avg == mean_interval(np.array([1, 0.5, 0.25, 0]))


def test_problems_weigh_the_same_whatever_their_samples_and_k_goes_up_to_the_fewest() -> None:
    # 1/1 and 1/4: the mean of the means is 5/8, not 2/5.
    found = summarise(made([[1], [1, 0, 0, 0]]))
    assert found.avg.mean == 0.625
    assert list(found.pass_at) == [1]
    assert found.samples == "1 to 4"
    assert found.tokens == (10 + 11.5) / 2
    with pytest.raises(UserError, match=r"pass@2 of builtin on sums.*has 1 samples.*samples=2"):
        summarise(made([[1], [1, 0, 0, 0]]), ks=[2])
    with pytest.raises(UserError, match="pass@0"):
        summarise(made([[1]]), ks=[0])


def test_no_answers_cuts_and_failures_of_the_grader_are_counted() -> None:
    statuses = {(0, 1): "no_answer", (1, 0): "timeout", (1, 1): "crash", (1, 2): "timeout"}
    found = summarise(made([[1, 0, 0, 0], [0, 0, 0, 0]], statuses=statuses, total=500))
    assert (found.no_answer, found.truncated, found.timeouts, found.crashes) == (0.125, 0.125, 2, 1)
    assert found.asked == "2 of 500"


def test_an_answer_that_the_grader_lost_once_does_not_stop_the_majority() -> None:
    scores = made([[1, 1, 0]], statuses={(0, 2): "timeout"})
    scores.classes[0][2] = "42"  # the same text as the right ones
    assert summarise(scores, ks=[3]).maj_at[3].mean == 1.0


def test_benchmarks_together_count_problems_and_stratify() -> None:
    parts = [made([[1, 1]] * 8 + [[0, 0]] * 2, benchmark="easy"), made([[0, 1]] * 2 + [[0, 0]] * 3, benchmark="hard")]
    found = summarise_together(parts)
    assert found.avg.mean == pytest.approx((8 + 1) / 15)
    values = np.array([1.0] * 8 + [0] * 2 + [0.5] * 2 + [0] * 3)
    strata = np.array(["e"] * 10 + ["h"] * 5)
    assert found.avg == mean_interval(values, strata=strata)
    assert found.avg != mean_interval(values)
    assert (found.benchmark, found.asked) == ("all 2", "15")
    with pytest.raises(ValueError, match="each benchmark once"):
        summarise_together([parts[0], parts[0]])
    with pytest.raises(ValueError, match="one checkpoint"):
        summarise_together([parts[0], made([[1]], benchmark="hard", checkpoint="other")])


def test_two_protocols_are_refused_with_what_differs() -> None:
    cold, hot = made([[1]], temperature=0.6, name="cold"), made([[1]], checkpoint="b", name="hot")
    with pytest.raises(UserError, match=r"cold \(.*hot \(.*sampling.temperature 0.6 against 1.0.*--mixed"):
        require_one_protocol([cold, hot])
    require_one_protocol([cold, hot], mixed=True)
    require_one_protocol([cold, made([[1]], benchmark="other")])  # another benchmark has a hash of its own
    assert protocol_differences(cold.protocol, cold.protocol) == []
    long = {**protocol_of("sums"), "template": "x" * 100, "decoding": {"name": "fork"}}
    differences = protocol_differences(protocol_of("sums"), long)
    assert "decoding.name (absent) against 'fork'" in differences
    assert all(len(line) < 160 for line in differences)


def test_a_section_has_one_protocol_a_benchmark() -> None:
    everything = [
        made([[1]]), made([[1]], benchmark="products"), made([[1]], temperature=0.6, name="cold"),
        made([[1]], checkpoint="b"), made([[1]], checkpoint="b", engine="other"),
    ]  # fmt: skip
    found = sections(everything)
    assert [[(one.checkpoint, one.benchmark) for one in part] for part in found] == [
        [("builtin", "sums"), ("builtin", "products"), ("b", "sums")], [("builtin", "sums")], [("b", "sums")],
    ]  # fmt: skip
    # The same settings on another version of the problems: another section.
    other = made([[1]], checkpoint="c")
    newer = made([[1]], checkpoint="d")
    newer.protocol["benchmark"]["version"] = 2
    object.__setattr__(newer, "protocol_hash", "f" * 16)
    assert len(sections([other, newer])) == 2
    for part in found:
        require_one_protocol(part)


def test_checkpoints_are_found_by_label_name_path_run_glob_and_hash(tmp_path: Path) -> None:
    scores = [*run_of([1, 2]), *run_of([3], run=str(tmp_path / "y")), made([[1]])]
    keys = [one.checkpoint_hash for one in scores]
    assert find_in_ledger(scores, "builtin") == [keys[3]]
    assert find_in_ledger(scores, "runs/x/checkpoints/checkpoint-10") == [keys[0]]
    assert find_in_ledger(scores, "./runs/x/checkpoints/checkpoint-20/") == [keys[1]]
    assert find_in_ledger(scores, "x/checkpoint-20") == [keys[1]]
    assert find_in_ledger(scores, "checkpoint-20") == [keys[1]]
    assert find_in_ledger(scores, "checkpoint-10") == [keys[0], keys[2]]
    assert find_in_ledger(scores, "runs/x") == keys[:2]
    assert find_in_ledger(scores, f"{tmp_path}/y/") == [keys[2]]
    assert find_in_ledger(scores, "*/checkpoint-1?") == [keys[0], keys[2]]
    assert find_in_ledger(scores, keys[2][:6]) == [keys[2]]
    with pytest.raises(UserError, match=r"did you mean builtin\? it has runs/x/checkpoints/checkpoint-10, "):
        find_in_ledger(scores, "bultin")
    names = short_names([*scores, made([[1]], checkpoint="z/x/checkpoints/checkpoint-10")])
    assert names[keys[1]] == "x/checkpoint-20"
    assert names[keys[0]] == "runs/x/checkpoints/checkpoint-10", "two short names would be the same"
    assert short_names([made([[1]], checkpoint="Qwen/Qwen3-8B")]).popitem()[1] == "Qwen/Qwen3-8B"


def test_a_protocol_is_chosen_by_name_or_hash() -> None:
    scores = [made([[1]]), made([[1]], temperature=0.6, name="cold")]
    assert choose(scores, None, "cold") == choose(scores, None, scores[1].protocol_hash[:6]) == [scores[1]]
    with pytest.raises(UserError, match=r"protocol warm is not in the ledger; it has plain \(.*, cold \("):
        choose(scores, None, "warm")


def test_seeds_are_more_samples() -> None:
    merged = merge_seeds([made([[1, 0], [0, 0]]), made([[1, 1], [1, 0]], seed=1, first=1)])
    assert merged.problems == ["p00", "p01", "p02"]
    assert [row.tolist() for row in merged.correct] == [[1, 0], [0, 0, 1, 1], [1, 0]]
    assert [len(row) for row in merged.classes] == [len(row) for row in merged.statuses] == [2, 4, 2]
    with pytest.raises(ValueError, match="more than their seed"):
        merge_seeds([made([[1]]), made([[1]], checkpoint="b")])


def test_the_table_shows_parts_seeds_and_benchmarks_together() -> None:
    scores = [
        made([[1, 1]] * 3, total=500), made([[1, 1]] * 2, benchmark="products", statuses={(0, 0): "timeout"}),
        made([[1, 1]] * 3, total=500, seed=1), made([[1, 0, 0, 1]] * 3, total=500, checkpoint="b"),
    ]  # fmt: skip
    (section,) = read_sections(scores)
    table = sheet(section)
    column = {name: [row[index] for row in table.rows] for index, name in enumerate(table.columns)}
    assert column["problems"] == ["3 of 500", "2", "3 of 500", "3 of 500", "5 of 502"]
    assert column["benchmark"][-1] == "all 2", "only for the checkpoint and seed that have both"
    assert column["seed"] == ["0", "0", "1", "0", "0"]
    assert column["n"] == ["2", "2", "2", "4", "2"]
    assert {"pass@2", "pass@4"} & set(column) == {"pass@2"}, "the k that all rows have"
    assert column["grader failed"] == ["0", "1", "0", "0", "1"]
    assert any("3 of 500 problems of sums" in note for note in table.notes)
    assert any("ran out of time on 1 samples" in note for note in table.notes), "not twice, for all benchmarks together"


def shown(ledger: Path, width: int = 200, **options: object) -> str:
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as capture:
        show_results(ledger, console, **options)  # type: ignore[arg-type]
    return capture.get()


def test_results_of_a_ledger_on_the_disk(tmp_path: Path) -> None:
    hot = [made([[1, 0]] * 12), *run_of([6, 9])]
    cold = made([[1, 1]] * 12, temperature=0.6, name="cold")
    ledger = written(tmp_path / "led", [*hot, cold])
    assert [one.means().tolist() for one in read_ledger(ledger) if one.protocol["name"] == "plain"] == [
        one.means().tolist() for one in hot
    ]
    text = shown(ledger)
    assert text.count("protocol plain") == text.count("protocol cold") == 1
    assert "50.0 % (" in text
    assert "x/checkpoint-20" in text
    with (ledger / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["checkpoint"], float(row["avg@n"]), row["step"]) for row in rows if row["protocol"] == "plain"] == [
        ("builtin", 0.5, ""), (hot[1].checkpoint, 0.5, "10"), (hot[2].checkpoint, 0.75, "20"),
    ]  # fmt: skip
    assert all(float(r["pass@2_low"]) <= float(r["pass@2"]) <= float(r["pass@2_high"]) for r in rows)
    markdown = (ledger / "results.md").read_text()
    assert hot[0].protocol_hash in markdown
    assert "| temperature | 0.6 |" in markdown
    page = (ledger / "results.html").read_text()
    assert page.count("<svg") == 3, "accuracy by step, pass@k of both protocols"
    assert not re.search(r'(?:src|href)="(?!#|data:)', page), "asks for nothing"
    assert len(re.findall(r'\bid="', page)) == len(set(re.findall(r'\bid="[^"]*"', page)))
    assert not list(ledger.glob(".*partial"))


def test_what_is_shown_can_be_chosen(tmp_path: Path) -> None:
    ledger = written(tmp_path / "led", [*run_of([6, 9]), made([[1, 1]] * 3, temperature=0.6, name="cold")])
    text = shown(ledger, protocol="plain", checkpoints=["checkpoint-20"], ks=[1, 2], output=tmp_path / "one.csv")
    assert [name in text for name in ("checkpoint-20", "pass@1", "pass@2")] == [True] * 3
    assert "checkpoint-10" not in text
    assert (tmp_path / "one.csv").read_text().count("\n") == 2
    assert not (ledger / "results.csv").exists()
    mixed = shown(ledger, mixed=True, output=tmp_path / "all")
    assert mixed.count("protocol cold and plain") == 1
    assert "cannot be compared" in mixed
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["results.csv", "results.html", "results.md"]
    with pytest.raises(UserError, match=r"ends in .pdf; expected .csv, .md, .html"):
        shown(ledger, output=tmp_path / "all.pdf")
    with pytest.raises(UserError, match="pass@4"):
        shown(ledger, ks=[4])


def test_texts_of_others_cannot_act_in_the_page(tmp_path: Path) -> None:
    label, name = "<img src=x onerror=alert(1)>", "</svg><script>alert(2)</script>\u202e"
    ledger = written(tmp_path / "led", [made([[1, 0]] * 3, checkpoint=label, name=name), *run_of([6, 9], name=name)])
    shown(ledger)
    page = (ledger / "results.html").read_text()
    assert "<img" not in page
    assert page.count("<script>") == 1, "the page's own"
    assert page.count("</svg>") == page.count("<svg")
    assert "\u202e" not in page
    assert "<img" not in (ledger / "results.md").read_text().replace("\\<", "")


def test_a_terminal_of_any_width_loses_no_number(tmp_path: Path) -> None:
    ledger = written(tmp_path / "led", [made([[1, 0]] * 3, checkpoint="models/[bold]a"), *run_of([6, 9])])
    wide = shown(ledger, width=150, output=tmp_path / "a.csv")
    for width in (60, 80, 100):
        narrow = shown(ledger, width=width, output=tmp_path / "a.csv")
        assert max(map(len, narrow.splitlines()[:-1])) <= width
        assert "…" not in narrow
        numbers = set(re.findall(r"\d+\.\d", wide))
        assert numbers <= set(re.findall(r"\d+\.\d", narrow))
    assert "models/[bold]a" in wide


def test_a_sheet_that_fits_is_one_table() -> None:
    table = Sheet("t", ["checkpoint", "x"], [["a", "1.0 (0.5 to 1.5)"]])
    console = Console(width=40)
    for width, lines in ((29, 1), (27, 2)):  # 10 + 2 + 16 characters
        with console.capture() as capture:
            console.print(rich_tables(table, width))
        assert sum(bool(re.search(r"\d", line)) for line in capture.get().splitlines()) == lines


def test_markdown_and_csv_keep_texts_as_they_are() -> None:
    assert markdown_text("a|b\n<!-- x") == r"a\|b \<!-- x"
    assert markdown_table(Sheet("", ["checkpoint", "n"], [["a|b", "1"]])).splitlines() == [
        "| checkpoint | n |", "| --- | ---: |", r"| a\|b | 1 |",
    ]  # fmt: skip
    assert csv_text([{"a": 1}, {"b": 'x,"y'}]).splitlines() == ["a,b", "1,", ',"x,""y"']


def test_p_values_in_words() -> None:
    assert [p_text(p) for p in (0.0004, 0.0012, 0.0487, 0.62, 1.0)] == [
        "p < 0.001", "p = 0.001", "p = 0.049", "p = 0.62", "p = 1.00",
    ]  # fmt: skip


def test_a_protocol_in_facts() -> None:
    protocol = protocol_of("sums", temperature=0.6) | {
        "decoding": {"name": "fork", "T": 2},
        "chat": True,
        "system": "S",
    }
    facts = protocol_facts(protocol)
    assert [facts[name] for name in ("temperature", "top_k", "decoding")] == ["0.6", "off", "fork(T=2)"]
    assert facts["chat"] == "the model's template, system 'S'"
    assert facts["data"] == f"version 1, sha256 {'d' * 16}"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_whole(tmp_path / "new" / "a.md", "one")

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"a.md cannot be written \(No space left on device\)"):
        write_whole(path, "two")
    assert path.read_text() == "one"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_whole(tmp_path / "file" / "a.md", "x")


def test_figures_have_a_line_a_run_and_say_what_they_leave_out() -> None:
    scores = [*run_of([3, 6, 9]), *run_of([2, 4], run="runs/y"), made([[1, 0]] * 12)]
    rows, names = [summarise(one) for one in scores], short_names(scores)
    (figure,) = accuracy_figures(rows, names, "a")
    assert [figure.svg.count(f">{text}<") for text in ("x", "y", "builtin", "optimizer step")] == [1, 1, 1, 1]
    assert figure.heading == "Accuracy on sums"
    (curves,) = pass_figures(rows, names, "b")
    assert "5 of 6 checkpoints" in curves.caption
    shown_names = [name for name in names.values() if f">{name}<" in curves.svg]
    assert shown_names == ["x/checkpoint-10", "x/checkpoint-30", "y/checkpoint-10", "y/checkpoint-20", "builtin"]
    assert accuracy_figures(rows[:1], names, "a") == [], "one checkpoint is no curve"
    assert pass_figures([summarise(one, ks=[2]) for one in scores], names, "b") == []


def test_figures_say_that_a_part_was_asked() -> None:
    scores = run_of([3, 6], total=500)
    rows, names = [summarise(one) for one in scores], short_names(scores)
    for figure in accuracy_figures(rows, names, "a") + pass_figures(rows, names, "b"):
        assert "Only a part was asked: 12 of 500 problems." in figure.caption


def test_curves_of_mixed_protocols_stay_apart() -> None:
    scores = [*run_of([3, 6]), *run_of([4, 8], temperature=0.6)]
    (figure,) = accuracy_figures([summarise(one) for one in scores], short_names(scores), "a")
    for one in scores:
        assert f">x, {one.protocol_hash[:6]}<" in figure.svg
