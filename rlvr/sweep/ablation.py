"""Named arms: `configs/ablation/NAME.yaml`."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from rlvr.config.compose import configs_dir
from rlvr.config.convert import build, convert
from rlvr.errors import UserError
from rlvr.sweep.grammar import SEED, read_settings


@dataclass
class Ablation:
    """Arms that are compared with one of them.

    Attributes:
        about: what it asks, in a sentence.
        settings: of every arm; the command line comes after them.
        seeds: values of `run.seed` that each arm is run with.
        baseline: the arm that the others are compared with.
        arms: name -> settings that make it.
    """

    about: str = ""
    settings: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    baseline: str = ""
    arms: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arms = {str(name): convert(given, list[str], f"arms.{name}") for name, given in self.arms.items()}
        if self.baseline not in self.arms:
            raise UserError(
                f"baseline is {self.baseline!r}; expected one of the arms {', '.join(self.arms) or '(none)'}"
            )
        if not self.seeds:
            raise UserError("seeds is empty; expected whole numbers, e.g. [0, 1, 2]")
        for where, texts in {"settings": self.settings, **self.arms}.items():
            found = read_settings(texts)
            if found.axes or found.intervals or found.seeds is not None:
                raise UserError(f"{where} holds several values or {SEED}; expected KEY=VALUE, and seeds under `seeds`")

    @property
    def keys(self) -> set[str]:
        """Settings that the arms make."""
        return set().union(*(read_settings(texts).keys for texts in self.arms.values()))


def ablation_names() -> list[str]:
    """What `ablation=` chooses from."""
    return sorted(path.stem for path in (configs_dir() / "ablation").glob("*.yaml"))


def read_ablation(name: str) -> Ablation:
    """An ablation that came with the package, or one's own.

    Args:
        name: of a file of `configs/ablation/`, or the path of a `.yaml` file.

    Raises:
        UserError: if there is none, or it does not hold what it should.
    """
    import yaml

    path = Path(name).expanduser() if name.endswith(".yaml") else configs_dir() / "ablation" / f"{name}.yaml"
    if not path.is_file():
        known = ablation_names()
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"ablation={name} is unknown; {hint}known are {', '.join(known)}, or the path of a .yaml file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        ablation: Ablation = build(Ablation, values, path.name)
    except yaml.YAMLError as error:
        raise UserError(f"ablation={name} is no YAML: {' '.join(str(error).split())}") from None
    except UserError as error:
        raise UserError(f"ablation={name}: {error}") from None
    return ablation
