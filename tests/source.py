"""The package's source as data: modules, imports, functions. Used by the tests of the architecture."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import rlvr

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rlvr"


def modules() -> dict[str, Path]:
    """Every module of the package by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(), filename=str(path))


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, but for what stands under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            children: list[ast.AST] = list(child.orelse)
        else:
            children = [child]
        for kept in children:
            yield kept
            yield from runtime_nodes(kept)


def resolve(module: str, node: ast.ImportFrom) -> str:
    """The absolute name a `from ... import` reads from."""
    if not node.level:
        return node.module or ""
    is_package = MODULES[module].name == "__init__.py"
    base = module.split(".")[: len(module.split(".")) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)


@cache
def imports(module: str) -> dict[str, int]:
    """What a module imports, anywhere in it, with the line: modules, and submodules named after `import`."""
    found: dict[str, int] = {}
    for node in runtime_nodes(tree_of(MODULES[module])):
        if isinstance(node, ast.Import):
            found.update({alias.name: node.lineno for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            source = resolve(module, node)
            for alias in node.names:
                name = f"{source}.{alias.name}"
                lazy = rlvr._HOMES.get(alias.name, source) if source == "rlvr" else source
                found[name if name in MODULES else lazy] = node.lineno
    return found


@cache
def reached(module: str) -> dict[str, tuple[str, ...]]:
    """Everything outside the package that importing a module can load, with the chain that leads there."""
    found: dict[str, tuple[str, ...]] = {}
    chains: dict[str, tuple[str, ...]] = {module: (module,)}
    queue = [module]
    while queue:
        here = queue.pop()
        for name in imports(here):
            if name in MODULES and name not in chains:
                chains[name] = (*chains[here], name)
                queue.append(name)
            elif name.split(".")[0] != "rlvr":
                found.setdefault(name.split(".")[0], (*chains[here], name))
    return found


def inside(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or below one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def of_package(*packages: str) -> list[str]:
    """The modules of some packages."""
    return [module for module in MODULES if inside(module, *packages)]


def offenders(module: str, forbidden: Callable[[str], bool]) -> list[str]:
    """`file:line imports name` for every import that the predicate forbids."""
    path = MODULES[module].relative_to(ROOT)
    return [f"{path}:{line} imports {name}" for name, line in imports(module).items() if forbidden(name)]


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function below a node with its dotted name."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        name = f"{prefix}{child.name}" if named else prefix  # type: ignore[attr-defined]
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, child
        yield from functions(child, f"{name}." if named else prefix)


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring and decorators not counted."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines
