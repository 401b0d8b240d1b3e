"""Commands whose module is imported when they are called: diffusers and transformers take seconds to import, and a list
of commands needs neither."""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["Listed", "Verbs", "verb"]


class Verbs(TyperGroup):
    """A group of the commands in a package, a module each."""

    package: ClassVar[str]
    verbs: ClassVar[Mapping[str, str]]
    """What its help lists: verb -> what it does."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.verbs:
            return None
        return Listed(cmd_name, help=self.verbs[cmd_name], package=self.package)


class Listed(TyperCommand):
    """A verb that is listed and not yet imported."""

    def __init__(self, name: str, *, help: str, package: str) -> None:
        super().__init__(name, help=help)
        self.package = package

    def imported(self) -> Any:
        """The command itself."""
        assert self.name is not None
        return verb(self.name, package=self.package)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.imported().make_context(info_name, args, parent=parent, **extra)


def verb(name: str, *, package: str = "urae.cli") -> Any:
    """The command of this verb, its module imported."""
    function = f"{name}_" if keyword.iskeyword(name) else name
    module = importlib.import_module(f"{package}.{function}")
    if hasattr(module, "app"):
        return typer.main.get_group(module.app)
    single = typer.Typer(add_completion=False)
    single.command()(getattr(module, function))
    return typer.main.get_command(single)
