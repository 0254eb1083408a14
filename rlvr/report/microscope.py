"""The token microscope: one HTML page on which every token of recorded completions can be looked at."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rlvr.errors import UserError
from rlvr.report.completions import tokenizer_places
from rlvr.report.microscope_encoding import as_script, payload
from rlvr.report.microscope_rows import Sample, read_samples
from rlvr.report.microscope_scoring import Ask, asker, fill
from rlvr.report.page import page
from rlvr.report.reading import RunData, read_run
from rlvr.report.tokens import Decoder, entropy_legend, load_decoder, visible
from rlvr.run_folder import RunFolder

STYLES = ("page.css", "microscope.css")
SCRIPTS = ("microscope_data.js", "microscope_view.js", "microscope.js")


def build_microscope(
    folder: RunFolder | Path,
    *,
    steps: Sequence[int] | None = None,
    completions: int = 200,
    against: str | None = None,
    score_with: str | None = None,
    scoring: bool = True,
    out: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write the token microscope of a run.

    Args:
        folder: of the run; only `metrics.jsonl` and a record in `rollouts/` must be there.
        steps: optimizer steps whose records are shown; None for a few of all.
        completions: at most so many, shared by the steps.
        against: a policy whose scores stand beside, as `rlvr.analysis.scoring.open_policy` takes it.
        score_with: a policy whose scores replace the recorded ones.
        scoring: ask the policy nearest to the sampling one for what was not recorded.
        out: the file; `microscope.html` of the run if not given.
        say: told what takes a while.

    Returns:
        The page, a single file that opens from the disk.

    Raises:
        UserError: if there is nothing to show, a policy cannot be asked, or the file cannot be written.
    """
    run = read_run(folder)
    samples, remarks = read_samples(run, steps, completions)
    decoder = load_decoder(tokenizer_places(run))
    ask = asker(run, decoder.decode, say)
    samples, gaps = _asked(run, samples, ask, score_with, against, scoring)
    path = out if out is not None else run.folder.path / "microscope.html"
    _write(path, render(run, samples, decoder, against, [*remarks, *gaps]))
    return path


def _asked(
    run: RunData, samples: list[Sample], ask: Ask, score_with: str | None, against: str | None, scoring: bool
) -> tuple[list[Sample], list[str]]:
    """The completions with what policies say of them, and a sentence for each gap that stays."""
    gaps: list[str] = []
    if score_with is not None:
        pairs = zip(samples, ask(score_with, samples), strict=True)
        samples = [replace(sample, scores=scores) for sample, scores in pairs]
    elif scoring:
        samples, gaps = fill(run, samples, ask)
    if against is not None:
        pairs = zip(samples, ask(against, samples), strict=True)
        samples = [replace(sample, against=scores) for sample, scores in pairs]
    return samples, gaps


def render(
    run: RunData, samples: Sequence[Sample], decoder: Decoder, against: str | None, remarks: Sequence[str]
) -> str:
    """The page of completions that were read and scored."""
    from markupsafe import Markup

    steps = list(dict.fromkeys(sample.facts["step"] for sample in samples))
    return page(
        "microscope.html.j2",
        styles=STYLES,
        scripts=SCRIPTS,
        name=visible(run.setting("run", "name") or run.folder.path.resolve().name),
        steps=steps,
        recorded=len(run.records),
        completions=len(samples),
        tokens=sum(len(sample.token_ids) for sample in samples),
        decoder=decoder,
        against=None if against is None else visible(against),
        candidates=str(run.setting("selection", "scope")).startswith("micro_batch"),
        legend=entropy_legend(),
        remarks=[visible(remark) for remark in remarks],
        data=Markup(as_script(payload(samples, decoder.decode, against))),
    )


def _write(path: Path, text: str) -> None:
    """Write a page, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another file with --out") from None
    finally:
        partial.unlink(missing_ok=True)
