"""Recipes: a claim with its command, one folder each. `rlvr recipes` lists them and copies one to edit."""

import argparse
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.errors import UserError

HEADINGS = (
    "Claim and paper", "Exact command", "Hardware", "Results", "What differs from the paper and why", "Known failures",
)  # fmt: skip
"""Second-level headings of a recipe's README.md, in this order."""

RESULT_COLUMNS = ("what", "paper", "ours", "date", "commit")
SETTING_COLUMNS = ("setting", "paper", "key", "value", "files")
NOT_RUN = "not run"
SMOKE = "smoke"


@dataclass(frozen=True)
class Result:
    """A row of a recipe's table of results.

    Attributes:
        what: is measured.
        paper: the published number, as text.
        ours: the measured one, or `not run`.
        date: of ours, YYYY-MM-DD; empty without one.
        commit: that ours was measured at, hexadecimal; empty without one.
    """

    what: str
    paper: str
    ours: str
    date: str
    commit: str


@dataclass(frozen=True)
class Setting:
    """A number of the paper, and where a recipe sets it.

    Attributes:
        setting: in words.
        paper: the published value, as text.
        key: of the configuration, e.g. `rollouts.prompts`.
        value: that the key has, as text.
        files: patterns of the recipe's files that set it, without `.yaml`, e.g. `*_released`.
    """

    setting: str
    paper: str
    key: str
    value: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """One folder of `recipes/`.

    Attributes:
        name: of the folder.
        path: of the folder.
        claim: in one line.
        models: names of its files without `.yaml`, `smoke` left out.
        results: the rows of its table.
    """

    name: str
    path: Path
    claim: str
    models: list[str]
    results: list[Result]

    @property
    def run(self) -> bool:
        """Whether any row was measured here."""
        return any(result.ours != NOT_RUN for result in self.results)


def sections(path: Path) -> dict[str, str]:
    """The text below each second-level heading of a document, in order."""
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def table(text: str, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """The rows below a table's head of these columns, without backticks round a whole cell."""
    head = f"| {' | '.join(columns)} |"
    lines = iter(text.splitlines())
    for line in lines:
        if line == head:
            next(lines, None)
            break
    for line in lines:
        if not line.startswith("|"):
            return
        yield [re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in line.strip("|").split("|")]


def read_settings(recipe: Recipe) -> list[Setting]:
    """What a recipe's README says that its files set."""
    text = sections(recipe.path / "README.md")["Exact command"]
    return [
        Setting(setting, paper, key, value, tuple(part.strip(" `") for part in files.split(",")))
        for setting, paper, key, value, files in table(text, SETTING_COLUMNS)
    ]


def _read(folder: Path) -> Recipe:
    parts = sections(folder / "README.md")
    return Recipe(
        name=folder.name,
        path=folder,
        claim=parts[HEADINGS[0]].splitlines()[0],
        models=sorted(path.stem for path in folder.glob("*.yaml") if path.stem != SMOKE),
        results=[Result(*row) for row in table(parts["Results"], RESULT_COLUMNS)],
    )


def list_recipes() -> list[Recipe]:
    """The recipes that came with the package, by name."""
    from rlvr.config.compose import recipes_dir

    return [_read(path.parent) for path in sorted(recipes_dir().glob("*/README.md"))]


def _edited(text: str, name: str, dest: Path) -> str:
    """The text of a file, with what it says about the recipe's place changed to the new place.

    `recipe=NAME/MODEL` becomes `recipe=DEST/MODEL.yaml`. Under `defaults`, `/recipes/NAME/` becomes `/recipes/FOLDER/`.
    """
    text = re.sub(rf"\brecipe={re.escape(name)}/([\w.-]*\w)", rf"recipe={dest.as_posix()}/\1.yaml", text)
    return text.replace(f"- /recipes/{name}/", f"- /recipes/{dest.name}/")


def copy_recipe(name: str, dest: Path) -> list[Path]:
    """Copy a recipe to edit it; `rlvr train recipe=DEST/MODEL.yaml` runs the copy.

    Files of the copy that inherit from one another inherit from the copy.

    Args:
        name: as `rlvr recipes` lists it.
        dest: a folder that does not exist yet.

    Returns:
        The files written, the smoke run's last.

    Raises:
        UserError: for an unknown name, an existing place, or a folder name that cannot stand in a setting.
    """
    from difflib import get_close_matches

    from rlvr.config.recipe_files import check_name

    known = {recipe.name: recipe for recipe in list_recipes()}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"recipe {name} is unknown; {hint}known are {', '.join(known)}")
    if dest.exists():
        raise UserError(f"{dest} exists; expected a folder that does not, so that nothing is overwritten")
    check_name(dest.name, f"{dest}: the folder")
    try:
        shutil.copytree(known[name].path, dest)
    except OSError as error:
        raise UserError(f"{dest} cannot be written ({error.strerror}); expected a place for a folder") from None
    written = sorted(path for path in dest.iterdir() if path.is_file())
    for path in written:
        path.write_text(_edited(path.read_text(encoding="utf-8"), name, dest), encoding="utf-8")
    return sorted(written, key=lambda path: path.stem == SMOKE)


def add_parsers(commands: Any) -> None:
    """Add `rlvr recipes` to the command line."""
    recipes = commands.add_parser(
        "recipes", help="list the recipes, or copy one to edit",
        description="A recipe is a published claim with its command. Without an action: list them.",
        epilog="examples:\n  rlvr recipes\n  rlvr recipes copy forking_tokens my_forks\n"
        "  rlvr train recipe=my_forks/qwen3-8b.yaml\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    actions = recipes.add_subparsers(dest="action", metavar="ACTION")
    copy = actions.add_parser("copy", help="copy the folder of a recipe")
    copy.add_argument("name", metavar="NAME", help="as `rlvr recipes` lists it")
    copy.add_argument("dest", type=Path, metavar="DEST", help="a folder that does not exist yet")


def recipes(arguments: argparse.Namespace) -> int:
    """`rlvr recipes`."""
    if arguments.action == "copy":
        files = [path for path in copy_recipe(arguments.name, arguments.dest) if path.suffix == ".yaml"]
        print(f"{arguments.dest}: edit the files there, then")
        print("\n".join(f"  rlvr train recipe={path.as_posix()}" for path in files))
        return 0
    for recipe in list_recipes():
        print(f"{recipe.name} ({'run here' if recipe.run else NOT_RUN}): {recipe.claim}")
        print("\n".join(f"  recipe={recipe.name}/{model}" for model in recipe.models))
    print("`rlvr recipes copy NAME DEST` copies one to edit; the folder's README.md has its numbers and sources")
    return 0


COMMANDS = {"recipes": recipes}
