"""Commands whose module is imported when they are called: diffusers and transformers take seconds to import, and a list
of commands needs neither. What all commands share: options from fields, an option that takes one value once, and --json
where a command returns something."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import keyword
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from urae.cli.defaults import defaults_for
from urae.cli.options import with_fields

__all__ = ["Commands", "Listed", "Verbs", "verb"]


SHARED = (("train",), ("generate",), ("data", "cache"))
"""Commands that processes share. Any other would be done by each of them, over one another's files."""


class Command(TyperCommand):
    """Refuses an option that takes one value and is given twice, of which typer would take the last, and NaN, which is
    neither below a limit nor above it."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        for param in params:
            if param.param_type_name == "option":
                # One rule names them all (`urae.cli.defaults`).
                param.show_envvar = False  # type: ignore[attr-defined]
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _check_launched(ctx.command_path.split()[1:])
            options = [param.name for param in self.params if param.param_type_name == "option"]
            ctx.default_map = defaults_for(ctx.command_path.split()[1:], options, ctx.find_root().obj or {})
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for option in given:
                if option.param_type_name == "option" and not option.multiple and given.count(option) > 1:
                    raise ValueError(f"{option.opts[0]} is given twice: give it once")
        rest = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            values = value if isinstance(value, list) else [value]
            if any(one != one for one in values) and ctx.get_parameter_source(name).name != "DEFAULT":
                raise ValueError(f"--{name.replace('_', '-')} is nan: expected a number")
        return rest


def _check_launched(command: list[str]) -> None:
    num = os.environ.get("WORLD_SIZE", "1")
    if "LOCAL_RANK" in os.environ and num != "1" and tuple(command) not in SHARED:
        raise ValueError(
            f"urae {' '.join(command)} is done by one process, and {num} were started: leave out the launcher"
        )


class Commands(typer.Typer):
    """Commands in one module, whose parameters may stand for the fields of a dataclass. One that returns something
    takes --json."""

    def command(self, *args: Any, **settings: Any) -> Callable[..., Any]:
        """As typer's."""
        register = super().command(*args, **{"cls": Command, **settings})

        def registered(function: Callable[..., Any]) -> Callable[..., Any]:
            register(with_fields(_with_json(function)))
            return function

        return registered


Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document, all else to standard error.")
]


def _with_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with --json if its annotation says that it returns something: what JSON can hold, or a JSON text.
    Without the option it prints for people, and what it returns is dropped."""
    signature = inspect.signature(command, eval_str=True)
    if signature.return_annotation in (None, signature.empty):
        return command

    @functools.wraps(command)
    def run(**given: Any) -> None:
        if not given.pop("json"):
            command(**given)
            return
        with redirect_stdout(sys.stderr):
            result = command(**given)
        if result is not None:  # which is the main process's to tell
            options: Any = {"indent": 2, "ensure_ascii": False, "allow_nan": False}
            print(result.rstrip() if isinstance(result, str) else json.dumps(result, **options))

    option = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
    parameters = [*signature.parameters.values(), option]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


class Verbs(TyperGroup):
    """A group of the commands in a package, a module each."""

    package: ClassVar[str]
    verbs: ClassVar[Mapping[str, str]]
    """What its help lists: verb -> what it does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: Listed(name, help=text, package=self.package) for name, text in self.verbs.items()
        }


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
    single = Commands(add_completion=False)
    single.command()(getattr(module, function))
    return typer.main.get_command(single)
