"""A command's options from the fields of a frozen dataclass: name, type, default, choices, and the string below the
field as help; `metadata` may name the flag ("option") and the least number ("min"). So a new option is one field of
what the command asks for.

    def generate(asked: Annotated[dict[str, Any], Fields(DrawingRequest, without=("prompt",))], ...): ...

`with_fields` shows such a parameter as an option a field, and hands the command a dictionary of their values, for the
dataclass to check. What a command line cannot say, a field that takes objects alone, is no option.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

__all__ = ["Fields", "field_docs", "given_options", "with_fields"]

SCALARS = (bool, int, float, str, Path)
SWITCH = {"on": True, "off": False}
"""How a command line says true and false where there is a third word, such as auto."""


class Fields:
    """The fields of a dataclass as options, all or `only` some; `defaults` are those of the command where they are
    not the field's."""

    def __init__(
        self, of: type, *, only: Sequence[str] = (), without: Sequence[str] = (), **defaults: Any
    ) -> None:
        names = only or [field.name for field in dataclasses.fields(of)]
        self.of, self.names, self.defaults = of, set(names) - set(without), defaults

    def options(self) -> dict[str, FieldOption]:
        """Each field that a command line can say, by name."""
        docs, hints = field_docs(self.of), get_type_hints(self.of, localns=_Names(self.of))
        every = {field.name: field for field in dataclasses.fields(self.of) if field.name in self.names}
        options = {
            name: FieldOption(
                default=self.defaults.get(name, _default(field)),
                help=docs.get(name, ""),
                flag=field.metadata.get("option", ""),
                least=field.metadata.get("min"),
                **_said(hints[name]),
            )
            for name, field in every.items()
        }
        return {name: option for name, option in options.items() if option.kind}


@dataclass(frozen=True, kw_only=True)
class FieldOption:
    """A field on a command line."""

    kind: Any
    """Of one value: a scalar type; None for what cannot be said."""
    is_many: bool
    """Whether it is repeated for several values."""
    words: tuple[str, ...]
    """All that it may be, or what it may be beside a number."""
    is_optional: bool
    default: Any
    help: str
    flag: str
    """Where it is not named as the field is."""
    least: float | None = None
    """That the number may be."""

    def parameter(self, name: str) -> inspect.Parameter:
        """For typer."""
        plain = f"--{name.replace('_', '-')}"
        flags = [self.flag] if self.flag else [plain] if self.default is False else []
        words = self.words
        listed = f" One of {', '.join(words)}." if words and self.kind in (str, bool) else ""
        info = typer.Option(
            *flags,
            help=self.help + listed,
            min=self.least,
            autocompletion=(lambda: list(words)) if words else None,
        )
        kind = str if self.words else self.kind
        kind = list[kind] if self.is_many else kind | None if self.is_optional else kind  # type: ignore[valid-type]
        default = _as_list(self.default) if self.is_many else self.default
        shown = inspect.Parameter.empty if default is dataclasses.MISSING else default
        annotation = Annotated[kind, info]  # type: ignore[valid-type]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=annotation)

    def read(self, name: str, value: Any) -> Any:
        """What typer has read, in the field's own type; ValueError for a word that it does not take."""
        if self.is_many:
            return tuple(value) or (() if isinstance(self.default, tuple) else self.default)
        if not self.words or not isinstance(value, str) or (value in self.words and value not in SWITCH):
            return value
        if self.kind is bool and value in SWITCH:
            return SWITCH[value]
        if self.kind in (int, float):
            return _number(name, value, self.kind, self.words)
        raise ValueError(f"{name} is {value!r}: expected {_listed(self.words)}")


def with_fields(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with an option for each field of its parameters that stand for `Fields`."""
    signature = inspect.signature(command, eval_str=True)
    groups = {name: group.options() for name, group in _groups(signature).items()}
    parameters = [
        shown
        for name, one in signature.parameters.items()
        for shown in (
            [option.parameter(field) for field, option in groups[name].items()] if name in groups else [one]
        )
    ]

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        for name, options in groups.items():
            given[name] = {field: option.read(field, given.pop(field)) for field, option in options.items()}
        return command(**given)

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def given_options(ctx: typer.Context) -> set[str]:
    """The parameters that the command line sets, by name; none that stand at a default, of whatever origin."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def field_docs(kind: type) -> dict[str, str]:
    """The string below each field of a class and its bases, in one line."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= dict(_docs(base))
    return docs


def _docs(kind: type) -> Iterator[tuple[str, str]]:
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    for field, below in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(field.target, ast.Name)
            yield field.target.id, " ".join(ast.literal_eval(below.value).split())


def _groups(signature: inspect.Signature) -> Mapping[str, Fields]:
    return {
        name: part
        for name, one in signature.parameters.items()
        if get_origin(one.annotation) is Annotated
        for part in get_args(one.annotation)
        if isinstance(part, Fields)
    }


def _as_list(default: Any) -> Any:
    if default is None or default is dataclasses.MISSING:
        return [] if default is None else default
    return list(default) if isinstance(default, Sequence) and not isinstance(default, str) else [default]


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _said(hint: Any) -> dict[str, Any]:
    """How a command line says what an annotation allows: a sequence of the first scalar, or that one."""
    members = list(_members(hint))
    words = tuple(member for member in members if isinstance(member, str))
    scalars = [member for member in members if member in SCALARS]
    many = [one for member in members if _is_sequence(member) for one in _members(get_args(member)[0])]
    many = [one for one in many if one in SCALARS]
    kind = next(iter([*scalars, *many]), str if len(words) > 1 else None)
    if kind in (str, Path) and scalars:
        words = ()
    if kind is bool and words:
        words += tuple(SWITCH)
    return {
        "kind": kind,
        "is_many": kind in many,
        "words": words,
        "is_optional": type(None) in members and kind not in many,
    }


def _members(hint: Any) -> Iterator[Any]:
    """Types and words that a union and its literals hold."""
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _members(part)
    else:
        yield hint


def _is_sequence(hint: Any) -> bool:
    if get_origin(hint) is tuple:
        return get_args(hint)[-1] is Ellipsis
    return get_origin(hint) is Sequence


def _number(name: str, text: str, kind: type, words: tuple[str, ...]) -> Any:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {text!r}: expected {what} or {_listed(words)}") from None


def _listed(words: Sequence[str]) -> str:
    return f"one of {', '.join(words)}" if len(words) > 1 else words[0]


class _Names(dict[str, Any]):
    """What a class's annotations name. What only type checkers import stands for objects, which no text can say."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.module = vars(sys.modules[kind.__module__])

    def __missing__(self, name: str) -> Any:
        if name in self.module or hasattr(builtins, name):
            raise KeyError(name)
        return _Object


class _Object:
    """Stands for a type that is not imported."""
