"""One configuration out of groups, recipes and overrides: Hydra merges once, on the launching process."""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rlvr.config.convert import CHOSEN, NAME_KEY, STORED, config_fields, to_config, to_mapping
from rlvr.config.recipe_files import is_recipe_file, stage_recipe
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.registry import load_variants


def _root(name: str) -> Path:
    """A checkout keeps `configs/` and `recipes/` at its root; an installed package in `_configs/` beside its code."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_configs"
    if installed.is_dir():
        return installed if name == "configs" else installed / name
    return package.parent / name


def configs_dir() -> Path:
    """The folder of Hydra groups."""
    return _root("configs")


def recipes_dir() -> Path:
    """The folder of recipes, one per claim; Hydra finds it as the group `recipes`."""
    return _root("recipes")


def _store_variants() -> None:
    """Each variant is a choice of its group, with the defaults of its dataclass: nothing is written twice."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, known in load_variants().items():
        if group in STORED:
            for name, cls in known.items():
                defaults = to_plain_defaults(cls)
                store.store(group=group, name=name, node={NAME_KEY: name, **defaults})


def to_plain_defaults(cls: type) -> dict[str, Any]:
    """The defaults of a dataclass as plain values, its sections as mappings."""
    instance = cls()
    values = {name: getattr(instance, name) for name in config_fields(cls)}
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in values.items()
    }


def _parsed(overrides: Sequence[str]) -> list[Any]:
    """Overrides as Hydra reads them.

    Raises:
        UserError: for one that is not `key.sub=value`.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0].replace(" at '<EOF>'", "")
            raise UserError(f"{text} is not a setting ({reason}); expected KEY=VALUE, e.g. run.seed=1") from None
        if not override.key_or_group or override.package is not None or override.is_sweep_override():
            raise UserError(f"{text} is not a setting; expected KEY=VALUE with one value, e.g. run.seed=1")
        parsed.append(override)
    return parsed


def split_settings(overrides: Sequence[str], own: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of a command's own settings, and the overrides that are left.

    Raises:
        UserError: for one that cannot be read.
    """
    parsed = _parsed(overrides)
    chosen = {override.key_or_group: override.value() for override in parsed if override.key_or_group in own}
    return chosen, [override.input_line for override in parsed if override.key_or_group not in own]


EVALUATION_GROUPS = ("protocol", "decoding")
"""Groups that `rlvr evaluate` chooses from."""

LISTED = ("benchmark", "ablation")
"""Folders of `configs/` that are no groups: their files are named in a list, or read by a sweep."""


def _choices(primary: str) -> tuple[dict[str, list[str]], set[str]]:
    """What exists in every group that a command has, files and variants; and the groups of other commands."""
    groups = {path.name: path for path in configs_dir().iterdir() if path.is_dir()} | {"recipes": recipes_dir()}
    found = {
        group: {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
        for group, folder in groups.items()
    }
    for group, known in load_variants().items():
        if group in STORED:
            found[group] = found.get(group, set()) | set(known)
    evaluating = primary == "evaluate"
    own = {group for group in found if (group in EVALUATION_GROUPS) == evaluating and group not in LISTED}
    return {group: sorted(found[group]) for group in own}, set(found) - own


def _forced(overrides: Sequence[str], primary: str, stage: Path) -> list[str]:
    """Let unknown keys through Hydra, to be refused by name with a suggestion instead of Hydra's advice to add them.

    A recipe that is a file is put below `stage`, where Hydra looks for it.
    """
    choices, foreign = _choices(primary)
    forced = []
    for override in _parsed(overrides):
        text, key = override.input_line, override.key_or_group
        group = "recipes" if key == "recipe" else key
        if group in ("recipes", "decoding") and override.value() is None:
            continue
        if group in foreign:
            hint = "; did you mean benchmarks?" if group == "benchmark" and primary == "evaluate" else ""
            raise UserError(f"{text}: {key} is not a setting of `rlvr {primary}`{hint}")
        if group == "recipes" and group in choices and is_recipe_file(override.value()):
            forced.append(f"recipes={stage_recipe(override.value(), stage)}")
        elif group in choices and not override.is_delete():
            forced.append(f"{group}={_known_choice(key, override.value(), choices[group])}")
        elif key.split(".")[0] == "hydra":
            raise UserError(f"{text} sets Hydra itself; expected a section of the configuration, e.g. run.seed=1")
        else:
            plain = not (override.is_add() or override.is_force_add() or override.is_delete())
            forced.append(f"++{text}" if plain else text)
    return forced


def _known_choice(key: str, chosen: Any, known: list[str]) -> str:
    """The choice, or a list of choices, if they exist; the nearest one in the message if not."""
    if isinstance(chosen, list) and chosen:
        return f"[{','.join(_known_choice(key, one, known) for one in chosen)}]"
    if chosen in known:
        return str(chosen)
    near = get_close_matches(str(chosen), known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    listed = f"known are {', '.join(known)}" if known else "none exists yet"
    raise UserError(f"{key}={'null' if chosen is None else chosen} is unknown; {hint}{listed}")


def merge(overrides: Sequence[str] = (), primary: str = "train") -> dict[str, Any]:
    """The merged mapping of a primary configuration and overrides in Hydra's grammar.

    Args:
        overrides: `key=value`; later ones win.
        primary: `train` or `evaluate`: the file of `configs/` that the merge starts from.

    Raises:
        UserError: for an override that cannot be read or a choice that does not exist.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    _store_variants()
    try:
        with (
            TemporaryDirectory(prefix="rlvr-recipe-") as stage,
            initialize_config_dir(config_dir=str(configs_dir()), version_base="1.3"),
        ):
            search = f"hydra.searchpath=['file://{stage}','file://{recipes_dir().parent}']"
            merged = hydra_compose(primary, [search, *_forced(overrides, primary, Path(stage))])
        return OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    """What a library says, in one line and without its search path, after the key that it speaks of."""
    lines = takewhile(lambda line: line != "Config search path:", (line.strip() for line in str(error).splitlines()))
    said = " ".join(
        line.removeprefix("In 'train': ").removeprefix("In 'evaluate': ")
        for line in lines
        if line and not line.startswith(("full_key:", "object_type="))
    )
    key = getattr(error, "full_key", None)
    return f"{key}: {said}" if key else said


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The typed configuration of a run.

    Raises:
        UserError: for anything that does not fit.
    """
    return to_config(merge(overrides))


def read_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that a run saved, with overrides of its values.

    Raises:
        UserError: if the file is missing or not a configuration, or an override chooses another variant.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not path.is_file():
        raise UserError(f"--from {path} is not a file; expected the config.yaml of a run folder")
    chosen = {*CHOSEN, *(f"{group}.{NAME_KEY}" for group in CHOSEN), "algorithm", "recipe", "recipes", "reward"}
    try:
        saved = OmegaConf.load(path)
        if not isinstance(saved, DictConfig):
            raise UserError(f"--from {path} holds no mapping; expected the config.yaml of a run folder")
        for override in _parsed(overrides):
            key = override.key_or_group
            of_a_group = key in chosen or (key in ("launch", "deepspeed") and not isinstance(override.value(), dict))
            if of_a_group or override.is_delete():
                raise UserError(
                    f"{override.input_line} cannot be combined with --from; override single values, e.g. run.seed=1 "
                    "or launch.kind=slurm"
                )
            OmegaConf.update(saved, key, override.value(), merge=True, force_add=True)
        return to_config(OmegaConf.to_container(saved, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"--from {path}: {_one_line(error)}") from None


def write_config(config: RunConfig, path: Path) -> None:
    """Save the resolved configuration; `--from` repeats it."""
    from omegaconf import OmegaConf

    path.write_text(OmegaConf.to_yaml(OmegaConf.create(to_mapping(config))), encoding="utf-8")
