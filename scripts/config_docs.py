"""Write docs/config.md: every setting of a run, from the dataclasses that hold it.

    python -m scripts.config_docs          write the file
    python -m scripts.config_docs --check  say whether it is up to date; exit code 1 if it is not

Types and defaults come from the dataclasses, meanings from the `Attributes:` of their docstrings, and what a preset is
from the first comment of its file. A field without a meaning is an error.
"""

import argparse
import dataclasses
import inspect
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from rlvr.config.compose import configs_dir
from rlvr.config.convert import config_fields
from rlvr.config.evaluation import EvaluationConfig
from rlvr.config.schema import RunConfig
from rlvr.registry import load_variants
from rlvr.trainer.owned import ALGORITHM_OWNS, RUN_OWNS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"
SECTIONS = (
    "run", "model", "model.lora", "rollouts", "rollouts.record", "rollouts.dynamic", "optimizer", "evaluation",
    "logging", "trl", "deepspeed", "launch",
)  # fmt: skip
GROUPS = ("data", "reward", "advantage", "selection", "objective")
TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "any"}
LONGEST_VALUE = 48
"""Characters of a preset's value that are shown."""

INTRODUCTION = """\
# Configuration

This page is made by `make docs` from the dataclasses in `rlvr/config/schema.py` and in the files of the variants.
Change those, not this page.

A setting is `KEY=VALUE` on the command line: `rlvr train run.seed=1 optimizer.learning_rate=1e-5`. `null` is "not set".
A list is `[a,b]`. An unknown key is refused with the nearest known one. Later settings win: defaults, then the
algorithm, then a recipe, then the command line. `rlvr plan` prints what comes out; a run keeps it in `config.yaml`.

The defaults below are those of the dataclasses. A plain `rlvr train` chooses `algorithm=dapo_top20`, which sets some of
them: see [Algorithms](#algorithms)."""

ABOUT_GROUPS = {
    "data": "Chosen with `data=NAME`; fields are `data.FIELD`. `data=PRESET` chooses a variant with its fields set.",
    "reward": "Several rewards add up, each times its weight; the first gives the verdict. `reward=PRESET` chooses a "
    "set; `+reward.NAME.weight=1` adds one to it.",
    "advantage": "How much credit a token gets. Chosen with `advantage=NAME`.",
    "selection": "Which tokens carry gradient. Chosen with `selection=NAME`.",
    "objective": "What is minimised, and divided by what. Chosen with `objective=NAME`.",
    "decoding": "What is done to the logits before the temperature, in `rlvr evaluate`. Chosen with `decoding=NAME`.",
}


def meanings_in(docstring: str) -> dict[str, str]:
    """The entries of the `Attributes:` part of a docstring, each in one line."""
    lines = inspect.cleandoc(docstring).splitlines()
    if "Attributes:" not in lines:
        return {}
    found: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Attributes:") + 1 :]:
        if line and not line.startswith(" "):
            break  # the next part
        entry = re.fullmatch(r" {4}(\w+): (.+)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2].strip()
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def meaning_of(cls: type, field: str) -> str:
    """What a field means, as the class or the nearest of its bases says.

    Raises:
        ValueError: naming the field, if none does.
    """
    for base in cls.__mro__:
        found = meanings_in(base.__dict__.get("__doc__") or "")
        if field in found:
            return re.sub(r"\bNone\b", "null", found[field])
    raise ValueError(f"{cls.__module__}.{cls.__name__}.{field} has no meaning; describe it under `Attributes:`")


def about(described: Any) -> str:
    """The first paragraph of a class's or module's docstring, in one line."""
    return " ".join(inspect.cleandoc(described.__doc__ or "").split("\n\n")[0].split())


def type_name(hint: Any) -> str:
    """A type in words."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("null" if option is type(None) else type_name(option) for option in options)
    if typing.get_origin(hint) is list:
        return f"list of {type_name(options[0])}s"
    if typing.get_origin(hint) is dict:
        return "mapping"
    return "section" if dataclasses.is_dataclass(hint) else TYPES[hint]


def value_text(value: Any) -> str:
    """A value as one writes it in YAML or on the command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(value_text(entry) for entry in value)}]"
    return str(value) if value != "" else "''"


def code(text: str) -> str:
    """Text in backticks, fit for a cell."""
    return f"`{' '.join(text.split())}`"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fields_table(cls: type, prefix: str) -> str:
    """The fields that a configuration may set: key, type, default, meaning."""
    hints, rows = typing.get_type_hints(cls), []
    for name, field in config_fields(cls).items():
        made = field.default_factory() if callable(field.default_factory) else field.default
        if dataclasses.is_dataclass(made) and not prefix:
            continue  # a part of a command's own settings, with a table of its own
        default = "" if dataclasses.is_dataclass(made) else code(value_text(made))
        rows.append([code(f"{prefix}.{name}".lstrip(".")), type_name(hints[name]), default, meaning_of(cls, name)])
    return table(["key", "type", "default", "meaning"], rows) if rows else "It has no fields."


def first_comment(path: Path) -> str:
    """The comment that a file of the configuration starts with, in one line.

    Raises:
        ValueError: naming the file, if it has none.
    """
    said = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            said.append(line.lstrip("# "))
    if not said:
        raise ValueError(f"configs/{path.parent.name}/{path.name} does not say what it is; start it with a comment")
    return " ".join(said)


def flat(values: Any, prefix: str = "") -> dict[str, str]:
    """The leaves of a mapping by dotted key, long ones cut."""
    if isinstance(values, dict) and values:
        parts = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
        return {key: text for part in parts for key, text in part.items()}
    text = "{}" if values == {} else value_text(values)
    return {prefix: text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."}


def preset_sets(path: Path) -> str:
    """What a preset chooses and sets, as `key=value`s."""
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    group, chosen = path.parent.name, []
    for entry in values.pop("defaults", []):
        if isinstance(entry, dict):
            chosen += [f"{str(name).removeprefix('override /')}={choice}" for name, choice in entry.items()]
        elif entry != "_self_":
            chosen.append(f"{group}={entry}")
    values.get("run", {}).pop("algorithm", None)  # a label, not a setting of the algorithm
    prefix = "" if group in ("algorithm", "protocol") else group
    leaves = {
        key: text for key, text in flat({name: v for name, v in values.items() if v != {} or prefix}).items() if key
    }
    return ", ".join(code(text) for text in [*chosen, *(f"{prefix}.{k}={v}".lstrip(".") for k, v in leaves.items())])


def presets(group: str) -> str:
    """The files of a group: choice, what it is, what it sets."""
    files = sorted((configs_dir() / group).glob("*.yaml"))
    rows = [[code(f"{group}={path.stem}"), first_comment(path), preset_sets(path)] for path in files]
    return table(["choice", "what it is", "what it sets"], rows)


def section(name: str) -> str:
    """One section: what it is, and its fields."""
    cls: Any = RunConfig
    for part in name.split("."):
        parent, cls = cls, typing.get_type_hints(cls)[part]
    if dataclasses.is_dataclass(cls):
        parts = [f"### `{name}`", about(cls), fields_table(cls, name)]  # type: ignore[arg-type]
        return "\n\n".join([*parts, presets(name)] if (configs_dir() / name).is_dir() else parts)
    row = [code(f"{name}.KEY"), type_name(cls), code("{}"), meaning_of(parent, name)]
    parts = [f"### `{name}`", table(["key", "type", "default", "meaning"], [row])]
    if name == "trl":
        parts.append(
            "Most fields pass. Those in [Fields of TRL that are not taken](#fields-of-trl-that-are-not-taken) do not."
        )
    if (configs_dir() / name).is_dir():
        parts.append(presets(name))
    return "\n\n".join(parts)


def group(name: str) -> str:
    """One group: its variants and their fields, and its presets."""
    parts, nested = [f"### `{name}`", ABOUT_GROUPS[name]], dict[str, Any]()
    for choice, cls in sorted(load_variants()[name].items()):
        parts += [f"#### `{name}={choice}`", f"{about(sys.modules[cls.__module__])} {about(cls)}"]
        parts.append(fields_table(cls, f"{name}.{choice}" if name == "reward" else name))
        hints = typing.get_type_hints(cls)
        nested |= {field: hints[field] for field in config_fields(cls) if dataclasses.is_dataclass(hints[field])}
    for field, cls in nested.items():
        parts.append(f"#### `{name}.{field}`\n\n{about(cls)}\n\n{fields_table(cls, f'{name}.{field}')}")
    if (configs_dir() / name).is_dir():
        parts += [f"#### Presets of `{name}`", presets(name)]
    return "\n\n".join(parts)


def evaluation() -> list[str]:
    """The settings of `rlvr evaluate`, its parts, decoding rules and protocols."""
    parts = [
        "## Evaluation",
        "Settings of `rlvr evaluate`; they have no section before them: `rlvr evaluate model=runs/x samples=4`.",
        fields_table(EvaluationConfig, ""),
    ]
    for name, hint in typing.get_type_hints(EvaluationConfig).items():
        if dataclasses.is_dataclass(hint):
            parts.append(f"### `{name}`\n\n{about(hint)}\n\n{fields_table(hint, name)}")  # type: ignore[arg-type]
    named = "A protocol sets the fields from `template` to `think`; one that is changed is shown as such."
    return [*parts, group("decoding"), "### Protocols", named, presets("protocol")]


def owned(heading: str, fields: dict[str, str]) -> str:
    """Fields of TRL that are decided elsewhere, and where."""
    rows = [[code(f"trl.{name}"), code(use) if re.fullmatch(r"[\w.<>]+", use) else use] for name, use in fields.items()]
    return f"### {heading}\n\n{table(['field', 'use instead, or why there is nothing'], rows)}"


def page() -> str:
    """The whole page.

    Raises:
        ValueError: for a field, a variant or a preset that nobody described.
    """
    parts = [
        INTRODUCTION,
        "## Sections", *map(section, SECTIONS),
        "## Choices", *map(group, GROUPS),
        "## Algorithms",
        "An algorithm is a choice of advantage, selection and objective with their fields: `algorithm=NAME`.",
        presets("algorithm"),
        *evaluation(),
        "## Fields of TRL that are not taken",
        "They are refused under `trl:`, because something else decides them.",
        owned("The algorithm decides", ALGORITHM_OWNS),
        owned("The run decides", RUN_OWNS),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write the page, or check it; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/config.md from the schema.")
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    arguments = parser.parse_args(argv)
    try:
        text = page()
    except ValueError as error:
        print(f"config_docs: {error}", file=sys.stderr)
        return 1
    if not arguments.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print("config_docs: docs/config.md is not what the schema says; run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
