"""A recipe as plain values: dotted keys, dictionaries, YAML.

Everything that is not Python passes through `from_dict`, which checks each value against the type of its
field and answers a wrong key or value with one sentence that lists the valid ones. Text, as the command line
gives it, is read as YAML where the field is no text itself.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from urae.adapters import SPECS, Spec
from urae.errors import BadFile
from urae.io import parse_yaml, read_yaml, write_text
from urae.resolution import ResolutionPolicy
from urae.training.recipe import Recipe

__all__ = ["from_dict", "load_recipe", "override", "recipe_text", "save_recipe", "to_dict", "valid_keys"]


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with changes by key, such as {"seed": 1, "adapter.rank": 8}; text values are read as
    YAML."""
    values = to_dict(recipe)
    for key, value in changes.items():
        _place(values, key, value)
    changed = from_dict(values)
    _check_policy_follows(recipe, changed)
    return changed


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe in types that YAML and JSON have."""
    values = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    return {name: _plain(value) for name, value in values.items()}


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """The recipe with these values; a missing key without a default, an unknown key or a wrong type is a
    `ValueError`."""
    hints = get_type_hints(Recipe)
    for key in values:
        _known(key, tuple(hints), whole="recipe key")
    missing = [
        field.name for field in dataclasses.fields(Recipe) if _required(field) and field.name not in values
    ]
    if missing:
        raise ValueError(f"a recipe needs {', '.join(missing)}: give a value for each")
    return Recipe(**{key: _converted(key, value, hints[key]) for key, value in values.items()})


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file. What is no YAML mapping is a `BadFile`."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise BadFile(f"{path} is not a recipe: expected keys and values in YAML")
    return from_dict(values)


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe as YAML, complete or not at all."""
    write_text(path, recipe_text(recipe))


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True, width=100)


def valid_keys(recipe: Recipe) -> list[str]:
    """Every key that `override` takes for this recipe, sorted."""
    keys = []
    for key, value in to_dict(recipe).items():
        keys += [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]
    return sorted(keys)


# --- in and out ----------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, ResolutionPolicy | Spec):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _place(values: dict[str, Any], key: str, value: Any) -> None:
    outer, _, inner = key.partition(".")
    _known(outer, tuple(values), whole="recipe key")
    if not inner:
        values[outer] = {"kind": value} if outer == "adapter" and isinstance(value, str) else value
    elif not isinstance(values[outer], dict):
        raise ValueError(f"{key} cannot be set: {outer} is {values[outer]!r}, which has no parts")
    else:
        values[outer] = {**values[outer], inner: value}


def _check_policy_follows(before: Recipe, after: Recipe) -> None:
    # A recipe.yaml holds the policy of its size in numbers.
    made_for = after.policy.scale if isinstance(after.policy, ResolutionPolicy) else 1
    if after.size != before.size and made_for != 1 and after.policy == before.policy:
        raise ValueError(
            f"size changes from {before.size} to {after.size} px, but the policy stays that of {made_for:g} times the "
            "native size: add policy=for_size, or the policy that you want"
        )


def _known(key: str, valid: tuple[str, ...], *, whole: str) -> None:
    if key not in valid:
        close = difflib.get_close_matches(key, valid, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"unknown {whole} {key!r}{hint}: the valid ones are {', '.join(sorted(valid))}")


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


# --- types ---------------------------------------------------------------------------------------------------


def _converted(key: str, value: Any, hint: Any) -> Any:
    if hint is Spec:
        return _spec(key, _read(value))
    if ResolutionPolicy in get_args(hint):
        return _policy(_read(value))
    is_text = hint is str or get_origin(hint) is Literal
    return _checked(key, value if is_text else _read(value), hint)


def _policy(value: Any) -> Any:
    """A policy from its settings or from a JSON file, such as `urae policy fit` writes; a name stays one."""
    if isinstance(value, str) and value.endswith(".json"):
        return ResolutionPolicy.read(value)
    if not isinstance(value, Mapping):
        return value
    return ResolutionPolicy.from_dict({name: _read(part) for name, part in value.items()})


def _read(value: Any) -> Any:
    """Text as YAML, in which 1e-3 is no number though everybody writes it; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        parsed = parse_yaml(value, name="the value")
        # What is too small for a float stays text, which is refused: it would be read as 0.
        is_number = isinstance(parsed, str) and bool(float(parsed)) == bool(Decimal(parsed))
        return float(parsed) if is_number else parsed
    except (ArithmeticError, ValueError, BadFile):
        return value


def _checked(key: str, value: Any, hint: Any) -> Any:
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return _checked_tuple(key, value, arguments)
    kinds = arguments if get_origin(hint) in (Union, UnionType) else (hint,)
    if not any(_fits(value, kind) for kind in kinds):
        raise ValueError(f"{key} is {value!r}: expected {' or '.join(map(_described, kinds))}")
    return float(value) if hint is float else value


def _checked_tuple(key: str, value: Any, arguments: tuple[Any, ...]) -> tuple:
    variable = arguments[-1] is Ellipsis
    if not isinstance(value, list | tuple) or (not variable and len(value) != len(arguments)):
        expected = f"a list of {_NAMES[arguments[0]]}" + ("" if variable else f", {len(arguments)} of them")
        raise ValueError(f"{key} is {value!r}: expected {expected}, such as [a, b]")
    return tuple(_checked(key, item, arguments[0]) for item in value)


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, kind)


def _described(kind: Any) -> str:
    return f"one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else _NAMES[kind]


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number below 2^63",
    float: "a finite number",
    str: "text",
}


def _spec(key: str, value: Any) -> Spec:
    if isinstance(value, Spec):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} is {value!r}: expected one of {', '.join(SPECS)}")
    return Spec.from_dict({name: part if name == "kind" else _read(part) for name, part in value.items()})
