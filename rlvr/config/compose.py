"""One configuration out of groups, recipes and overrides: Hydra merges once, on the launching process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr.config.convert import CHOSEN, NAME_KEY, config_fields, to_config, to_mapping
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.registry import load_variants


def _root(name: str) -> Path:
    """A checkout keeps `configs/` and `recipes/` at its root; an installed package beside its code."""
    package = Path(__file__).resolve().parent.parent
    installed = package / f"_{name}"
    return installed if installed.is_dir() else package.parent / name


def configs_dir() -> Path:
    """The folder of Hydra groups."""
    return _root("configs")


def recipes_dir() -> Path:
    """The folder of recipes, one per claim."""
    return _root("recipes")


def _store_variants() -> None:
    """Each variant is a choice of its group, with the defaults of its dataclass: nothing is written twice."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, known in load_variants().items():
        if group in CHOSEN:
            for name, cls in known.items():
                defaults = to_plain_defaults(cls)
                store.store(group=group, name=name, node={NAME_KEY: name, **defaults})


def to_plain_defaults(cls: type) -> dict[str, Any]:
    """The defaults of a dataclass as plain values."""
    instance = cls()
    return {name: getattr(instance, name) for name in config_fields(cls)}


def _forced(overrides: Sequence[str]) -> list[str]:
    """Let unknown keys through Hydra, to be refused by name with a suggestion instead of Hydra's advice to add them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    parser = OverridesParser.create()
    try:
        parsed = [parser.parse_override(text) for text in overrides]
    except OverrideParseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{error.override} is not an override; expected key.sub=value ({reason})") from None
    groups = {path.name for path in configs_dir().iterdir() if path.is_dir()} | set(CHOSEN) | {"recipes"}
    forced = []
    for override in parsed:
        text, key = override.input_line or "", override.key_or_group
        if key == "recipe":
            text, key = text.replace("recipe=", "recipes=", 1), "recipes"
        plain = not (override.is_add() or override.is_force_add() or override.is_delete())
        forced.append(text if key in groups or not plain else f"++{text}")
    return forced


def merge(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The merged mapping of `configs/train.yaml` and overrides in Hydra's grammar.

    Raises:
        UserError: for an override that cannot be read or a choice that does not exist.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _store_variants()
    search = f"hydra.searchpath=[file://{recipes_dir().parent}]"
    try:
        with initialize_config_dir(config_dir=str(configs_dir()), version_base="1.3"):
            merged = hydra_compose("train", [search, *_forced(overrides)])
        return OmegaConf.to_container(merged, resolve=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_teach(error)) from None


def _teach(error: Exception) -> str:
    """Hydra's message in one line, with the choices it lists."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:1]) + (": " + ", ".join(lines[2:]) if len(lines) > 2 and "Available" in lines[1] else "")


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The typed configuration of a run.

    Raises:
        UserError: for anything that does not fit.
    """
    return to_config(merge(overrides))


def read_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that a run saved, with overrides of its values.

    Raises:
        UserError: if the file is missing, or an override chooses another variant.
    """
    from omegaconf import OmegaConf

    if not path.is_file():
        raise UserError(f"--from {path} does not exist; expected the config.yaml of a run folder")
    saved = OmegaConf.load(path)
    for text in overrides:
        key, separator, _ = text.lstrip("+").partition("=")
        if not separator or key in CHOSEN or key in ("algorithm", "recipe", "recipes", "reward"):
            raise UserError(f"{text} cannot be combined with --from; override single values, e.g. run.seed=1")
    values = OmegaConf.merge(saved, OmegaConf.from_dotlist([text.lstrip("+") for text in overrides]))
    return to_config(OmegaConf.to_container(values, resolve=True))  # type: ignore[arg-type]


def write_config(config: RunConfig, path: Path) -> None:
    """Save the resolved configuration; `--from` repeats it."""
    from omegaconf import OmegaConf

    path.write_text(OmegaConf.to_yaml(OmegaConf.create(to_mapping(config))), encoding="utf-8")
