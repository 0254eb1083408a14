"""Reinforcement learning with verifiable rewards, on the tokens that matter.

The public names below resolve when they are first used (PEP 562), so `import rlvr` loads neither torch nor
math-verify nor TRL: a grader needs no torch, and `rlvr --help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr.advantages.ktae import ktae_advantages
    from rlvr.decoding.adaptive_temperature import adaptive_temperature
    from rlvr.decoding.em_inf import em_inf_logits
    from rlvr.errors import UserError
    from rlvr.maths.entropy import token_entropy
    from rlvr.maths.ktae import key_token_values
    from rlvr.rewards.grade import grade, grade_many
    from rlvr.rewards.verdict import Verdict
    from rlvr.selection.select import TokenSelection, select_tokens
    from rlvr.trainer.seam import RLVRTrainer

    __version__: str

__all__ = [
    "RLVRTrainer",
    "TokenSelection",
    "UserError",
    "Verdict",
    "__version__",
    "adaptive_temperature",
    "em_inf_logits",
    "grade",
    "grade_many",
    "key_token_values",
    "ktae_advantages",
    "select_tokens",
    "token_entropy",
]

_HOMES = {
    "RLVRTrainer": "rlvr.trainer.seam",
    "TokenSelection": "rlvr.selection.select",
    "UserError": "rlvr.errors",
    "Verdict": "rlvr.rewards.verdict",
    "adaptive_temperature": "rlvr.decoding.adaptive_temperature",
    "em_inf_logits": "rlvr.decoding.em_inf",
    "grade": "rlvr.rewards.grade",
    "grade_many": "rlvr.rewards.grade",
    "key_token_values": "rlvr.maths.ktae",
    "ktae_advantages": "rlvr.advantages.ktae",
    "select_tokens": "rlvr.selection.select",
    "token_entropy": "rlvr.maths.entropy",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(_unknown(name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rlvr")
    except PackageNotFoundError:
        return "0+unknown"  # a source tree that was never installed


def _unknown(name: str) -> str:
    """What to say about a name that is not public: the nearest public one, or the submodule to import."""
    from difflib import get_close_matches
    from importlib.util import find_spec

    if name.isidentifier() and not name.startswith("_") and find_spec(f"rlvr.{name}"):
        return f"module 'rlvr' has no attribute {name!r} yet; it is a submodule: write `import rlvr.{name}`"
    near = get_close_matches(name, __all__, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"public names are {', '.join(__all__)}"
    return f"module 'rlvr' has no attribute {name!r}; {hint}"
