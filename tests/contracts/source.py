"""The package's source as the contracts read it: modules, their classes, and which module imports from which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
FILES = sorted((SRC / "urae").rglob("*.py"))


def module_of(file: Path) -> str:
    """Dotted name of a source file's module; a package's is that of its folder."""
    parts = file.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}
PACKAGES = {name for name, file in MODULES.items() if file.name == "__init__.py"}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def line_count(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def place(file: Path) -> str:
    """A file's path inside the package, such as io/pictures.py."""
    return file.relative_to(SRC / "urae").as_posix()


def imported(file: Path) -> Iterator[tuple[ast.ImportFrom | ast.Import, ast.alias]]:
    """Every name that a file imports, at whatever depth, also for type checkers alone."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            for alias in node.names:
                yield node, alias


@cache
def exports(package: str) -> dict[str, tuple[str, str]]:
    """What a package's `__init__` imports: name -> module and the name in it."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node, alias in imported(MODULES[package])
        if isinstance(node, ast.ImportFrom) and node.module
    }


def home(module: str, name: str) -> str:
    """The module in which `from module import name` ends, through the exports of packages."""
    if module in PACKAGES and name in exports(module):
        source, its_name = exports(module)[name]
        if source != module:
            return home(source, its_name)
    inner = f"{module}.{name}"
    return inner if inner in MODULES else module


@cache
def imports(file: Path) -> set[str]:
    """Modules of the package on which a file depends. An attribute of a package that was imported whole counts as an
    import of what stands behind it, since that is how it is reached late."""
    found = set()
    for node, alias in imported(file):
        if isinstance(node, ast.Import):
            found |= {alias.name} & MODULES.keys()
        elif node.module and node.module.split(".")[0] == "urae":
            target = home(node.module, alias.name)
            taken = attributes_of(file, alias.asname or alias.name)
            found |= {home(target, name) for name in taken} if target in PACKAGES else {target}
    return found - {module_of(file)}


def attributes_of(file: Path, name: str) -> set[str]:
    """What a file takes from what it knows by this name: `b` in `name.b`."""
    return {
        node.attr
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }
