"""What a package exports, imported when it is first used: torch takes seconds to import, diffusers more. And the
signature of a function that takes what a dataclass has.

A package lists its exports once, as imports under `if TYPE_CHECKING:`, which type checkers and editors read:

    if TYPE_CHECKING:
        from urae.io.texts import read_text

    __getattr__, __dir__, __all__ = lazily(__name__)
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["lazily", "takes"]

F = TypeVar("F", bound=Callable[..., Any])


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The package's `__getattr__`, `__dir__` and `__all__`, from the imports under its `if TYPE_CHECKING:`.

    No module in the package may have the name of something that it exports from elsewhere: once imported, it would
    stand in the export's place.
    """
    homes = dict(_exports(package))

    def exported(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, its_name = homes[name]
        if module == package:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(module), its_name)

    names = sorted(homes, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    return exported, lambda: sorted(homes), names


def _exports(package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Exported name -> module and the name in it."""
    file = sys.modules[package].__file__
    assert file is not None
    for block in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for statement in block.body:
                assert isinstance(statement, ast.ImportFrom)
                assert statement.module
                for alias in statement.names:
                    yield alias.asname or alias.name, (statement.module, alias.name)


def takes(request: type) -> Callable[[F], F]:
    """Show the fields of a dataclass by name in the signature of a function that takes them as its `**asked`, before
    its own settings."""

    def shown(function: F) -> F:
        own = inspect.signature(function)
        *given, _ = own.parameters.values()
        settings = [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=_default(one), annotation=one.type
            )
            for one in dataclasses.fields(request)
            if one.name not in own.parameters
        ]
        first = [one for one in given if one.kind is not one.KEYWORD_ONLY or one.default is one.empty]
        rest = [one for one in given if one not in first]
        function.__signature__ = own.replace(parameters=[*first, *settings, *rest])  # type: ignore[attr-defined]
        return function

    return shown


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
