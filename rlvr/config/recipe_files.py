"""A recipe outside the package: `recipe=./mine/model.yaml` names a file instead of a choice."""

import shutil
from pathlib import Path
from typing import Any

from rlvr.errors import UserError

HEADER = "# @package _global_"
SUFFIX = ".yaml"


def is_recipe_file(chosen: Any) -> bool:
    """Whether a choice of `recipe` is a path: it ends with `.yaml`, which no name does."""
    return isinstance(chosen, str) and chosen.endswith(SUFFIX)


def stage_recipe(chosen: str, stage: Path) -> str:
    """Put a recipe and the YAML files beside it where Hydra finds them as the group `recipes`.

    Under `defaults`, a file names one beside it as `/recipes/FOLDER/MODEL`, as in the package. The files beside it come
    first, so a copy of a recipe under its own name inherits from the copy.

    Args:
        chosen: path of the file.
        stage: an empty folder on Hydra's search path.

    Returns:
        The choice of the group `recipes`.

    Raises:
        UserError: if there is no such file, it is no recipe, or Hydra could not write its folder's name.
    """
    file = Path(chosen).expanduser().resolve()
    if not file.is_file():
        raise UserError(
            f"recipe={chosen} is not a file; expected a YAML file, e.g. one that `rlvr recipes copy NAME DEST` wrote"
        )
    check_name(file.parent.name, f"recipe={chosen}: the folder")
    check_name(file.stem, f"recipe={chosen}: the file")
    text = file.read_text(encoding="utf-8", errors="replace")
    if not text.lstrip().startswith(HEADER):
        raise UserError(f"recipe={chosen} is not a recipe; expected {HEADER!r} in its first line")
    folder = stage / "recipes" / file.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    for other in sorted(file.parent.glob(f"*{SUFFIX}")):
        shutil.copyfile(other, folder / other.name)
    return f"{file.parent.name}/{file.stem}"


def check_name(name: str, what: str) -> None:
    """Refuse a name that Hydra's grammar would read as something else.

    Raises:
        UserError: saying what was named.
    """
    if not name or not all(letter.isalnum() or letter in "._-" for letter in name) or name.startswith("-"):
        raise UserError(f"{what} is called {name!r}; expected letters, digits, '.', '_' and '-' only")
