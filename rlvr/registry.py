"""Variants by name: `@variant("advantage", "rloo")` makes a dataclass the schema, the defaults and the strategy.

Standard library only, so that every variant file can import it.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

VARIANTS: dict[str, dict[str, type]] = {}
"""`VARIANTS[group][name]` is the dataclass that `group=name` selects."""

PACKAGES = {
    "advantage": "rlvr.advantages",
    "selection": "rlvr.selection",
    "objective": "rlvr.objectives",
    "reward": "rlvr.rewards",
    "data": "rlvr.data",
    "decoding": "rlvr.decoding",
}
"""Where the variants of a group live: one file each, found without a list to extend."""


def variant(group: str, name: str) -> Callable[[type], type]:
    """Register a dataclass as the choice `group=name`; the class learns both as `group` and `name`."""
    if group not in PACKAGES:
        raise ValueError(f"variant group {group!r} is unknown; expected one of {sorted(PACKAGES)}")

    def register(cls: type) -> type:
        known = VARIANTS.setdefault(group, {})
        if name in known and _path(known[name]) != _path(cls):  # a module that is loaded again registers anew
            raise ValueError(f"{group}={name} is already {_path(known[name])}; choose another name for {_path(cls)}")
        known[name] = cls
        cls.group, cls.name = group, name  # type: ignore[attr-defined]
        return cls

    return register


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def load_variants() -> dict[str, dict[str, Any]]:
    """Import every module of the variant packages that may register a class, once.

    A file without the word `variant` cannot; some of those are slow to import and only needed elsewhere, as the algebra
    of the grader is in its workers.
    """
    for package_name in PACKAGES.values():
        package = importlib.import_module(package_name)
        for module in pkgutil.iter_modules(package.__path__):
            name = f"{package_name}.{module.name}"
            if name not in sys.modules and _may_register(module):
                importlib.import_module(name)
    return VARIANTS


def _may_register(module: pkgutil.ModuleInfo) -> bool:
    """Whether the source says `variant`; a package is not looked into, and what has no source is imported."""
    spec = module.module_finder.find_spec(module.name, None)
    source = None if spec is None or spec.loader is None else spec.loader.get_source(module.name)  # type: ignore[attr-defined]
    return module.ispkg or source is None or "variant" in source
