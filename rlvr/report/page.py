"""Puts a run on one HTML page: no network, no other file, and no text of a model that could act in it."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.report.completions import shown_completions
from rlvr.report.figures import figures
from rlvr.report.intervals import wilson
from rlvr.report.reading import RunData, is_count, is_number, read_run
from rlvr.report.tokens import entropy_legend, visible
from rlvr.run_folder import RunFolder

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parent / "templates"

UNKNOWN = "not recorded"

FACTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("policy", ("model", "path")),
    ("advantage", ("advantage", "name")),
    ("selection", ("selection", "name")),
    ("keep", ("selection", "keep")),
    ("objective", ("objective", "name")),
    ("prompts a rollout", ("rollouts", "prompts")),
    ("completions a prompt", ("rollouts", "num_generations")),
    ("learning rate", ("optimizer", "learning_rate")),
)
"""Label -> where it stands in the configuration; shown where the run has it."""


def build_report(folder: RunFolder | Path) -> Path:
    """Write `report.html` into a run folder, from what the folder holds.

    Args:
        folder: of the run. Only `metrics.jsonl` must be there; the page says what else is missing.

    Returns:
        The page, a single file that opens from the disk.

    Raises:
        UserError: if there is no `metrics.jsonl`.
    """
    run = read_run(folder)
    path = run.folder.path / "report.html"
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(render(run), encoding="utf-8", newline="\n")
    partial_path.replace(path)
    return path


def render(run: RunData) -> str:
    """The page of a run."""
    shown = shown_completions(run)
    return page(
        "report.html.j2",
        name=visible(run.setting("run", "name") or run.folder.path.resolve().name),
        head=_head(run),
        facts=[(label, visible(run.setting(*keys))) for label, keys in FACTS if run.setting(*keys) is not None],
        accuracies=_accuracies(run.summary),
        problems=run.summary.get("heldout_problems"),
        figures=figures(run),
        shown=shown,
        legend=entropy_legend(),
        remarks=[visible(remark) for remark in [*run.remarks, *shown.remarks]],
        config=visible(run.config_text),
    )


def page(
    template: str, *, styles: Sequence[str] = ("page.css",), scripts: Sequence[str] = ("page.js",), **values: Any
) -> str:
    """Render a template that extends `base.html.j2`, with the style and the script in the page.

    The script is allowed by its hash, so a script that got into the page by another way would not run.

    Args:
        template: a file of `templates/`.
        styles: files of `templates/`, in their order.
        scripts: files of `templates/`, run as one.
        **values: of the template.
    """
    from markupsafe import Markup

    style, script = (_joined(names) for names in (styles, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"style": Markup(style), "script": Markup(script), "script_hash": f"sha256-{digest}"}
    return _environment().get_template(template).render(**own, **values)


def _joined(names: Sequence[str]) -> str:
    return "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = _number
    environment.filters["visible"] = visible
    return environment


def _number(value: Any) -> str:
    return f"{value:.3g}" if is_number(value) else UNKNOWN


def _head(run: RunData) -> list[tuple[str, str]]:
    """Algorithm, seed, steps and seconds: of the summary, else of what else says so."""
    summary, last = run.summary, run.metrics[-1] if run.metrics else {}
    seconds = summary.get("train_seconds", last.get("seconds"))
    steps = summary.get("steps", last.get("step"))
    planned = run.setting("run", "steps")
    unfinished = is_count(planned) and is_number(steps) and steps < planned
    values = {
        "algorithm": summary.get("algorithm") or run.setting("run", "algorithm"),
        "seed": summary.get("seed", run.setting("run", "seed")),
        "steps": f"{steps} of {planned}" if unfinished else steps,
        "training": f"{seconds:.1f} s" if is_number(seconds) else None,
    }
    return [(label, UNKNOWN if value is None else visible(value)) for label, value in values.items()]


def _accuracies(summary: dict[str, Any]) -> list[dict[str, str]]:
    """A row per way of decoding; none where nothing was measured."""
    count, rows = summary.get("heldout_problems"), []
    for label, key in (("sampled", "accuracy"), ("greedy", "greedy")):
        before, after = (summary.get(f"{key}_{when}") for when in ("before", "after"))
        if not (is_number(before) or is_number(after)):
            continue
        change = f"{100 * (after - before):+.1f} points" if is_number(before) and is_number(after) else UNKNOWN
        rows.append({"label": label, "before": _share(before, count), "after": _share(after, count), "change": change})
    return rows


def _share(value: Any, count: Any) -> str:
    """`47.1 % (42.8 to 51.4)`."""
    if not is_number(value):
        return UNKNOWN
    text = f"{value:.1%}".replace("%", " %")
    if not is_count(count) or not 0 <= value <= 1:
        return text
    low, high = wilson(round(value * count), count)
    return f"{text} ({100 * low:.1f} to {100 * high:.1f})"
