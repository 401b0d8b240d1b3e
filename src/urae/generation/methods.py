"""The generation methods by name, and their options as texts and as JSON.

A method is a frozen dataclass of its own options: `method="imax"` is short for `method=Imax()`, so an option of a
method that was not chosen cannot even be written down.
"""

from __future__ import annotations

import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from urae.generation.policies import policy_named
from urae.resolution import ResolutionPolicy

if TYPE_CHECKING:
    from PIL import Image

    from urae.generation.request import Request

__all__ = ["METHODS", "Method", "method_from_texts", "method_named", "options_of"]


class Method(Protocol):
    """How one image is made with a pipeline whose adapter, policy and memory plan are in place."""

    name: ClassVar[str]
    steps: ClassVar[int]
    """Default number of denoising steps of the pass at the target size; 0 for a method without one."""
    guidance: ClassVar[float]
    """Default guidance scale of that pass."""

    def policy(self, policy: ResolutionPolicy | None) -> ResolutionPolicy | None:
        """The policy of that pass, given the one that the direct method would have."""

    def describe(self, *, steps: int, shift: float) -> str:
        """What to tell the user about `steps` steps of it under a timestep shift; empty if nothing."""

    def draw(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image:
        """The image. `on_step` is called after each of `request.steps` steps."""


class _Methods(Mapping[str, Any]):
    """Each imported when it is asked for: who only lists their names does not wait for torch."""

    homes: ClassVar[Mapping[str, str]] = {
        "direct": "direct:Direct",
        "tiled": "tiled:Tiled",
        "sdedit": "sdedit:Sdedit",
        "imax": "imax:Imax",
        "hiflow": "hiflow:Hiflow",
        "esrgan": "esrgan:Esrgan",
    }

    def __getitem__(self, name: str) -> Any:
        return pkgutil.resolve_name(f"urae.generation.{self.homes[name]}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.homes)

    def __len__(self) -> int:
        return len(self.homes)


METHODS: Mapping[str, Any] = _Methods()
"""The methods' classes by name."""


def method_named(name: str, options: Mapping[str, Any]) -> Any:
    """A method by its name and the options that differ from its defaults, as `options_of` gives them.

    ValueError for an unknown name or option, with the valid ones.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}: expected one of {', '.join(METHODS)}")
    for option in options:
        _check_option(name, option)
    policy = options.get("native_policy")
    if isinstance(policy, Mapping):
        options = {**options, "native_policy": ResolutionPolicy.from_dict(policy)}
    return METHODS[name](**options)


def method_from_texts(name: str, settings: list[str]) -> Any:
    """A method by its name and settings "option=value", as a command line has them.

    A policy is "none", "reference" or the name of a JSON file.
    """
    options: dict[str, Any] = {}
    for setting in settings:
        option, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"the setting {setting!r} has no value: expected option=value")
        if option in options:
            raise ValueError(f"the setting {option!r} is given twice: give it once")
        if name in METHODS:
            options[option] = _value(name, option, text)
    return method_named(name, options)


def options_of(method: Any) -> dict[str, Any]:
    """All options of a method by name, as JSON types; of one that is not in `METHODS` too."""
    return {field.name: _plain(getattr(method, field.name)) for field in fields(method) if field.init}


def _options(name: str) -> list[str]:
    return [field.name for field in fields(METHODS[name])]


def _check_option(name: str, option: str) -> None:
    valid = _options(name)
    if option in valid:
        return
    others = [other for other in METHODS if option in _options(other)]
    belongs = f", it is one of {' and '.join(others)}" if others else ""
    its_own = f"valid options are {', '.join(valid)}" if valid else "it has none"
    raise ValueError(f"{option} is not an option of {name}{belongs}: {its_own}")


def _value(name: str, option: str, text: str) -> Any:
    """`text` in the type that the option's annotation says."""
    _check_option(name, option)
    expected = typing.get_type_hints(METHODS[name])[option]
    kinds = typing.get_args(expected) or (expected,)
    if ResolutionPolicy in kinds:
        return policy_named(text, option=option, words=("none",))
    if bool in kinds:
        return _true_or_false(option, text)
    words = [word for kind in kinds for word in typing.get_args(kind)]  # beside a number, such as "policy"
    if text in words or not {int, float} & set(kinds):
        return text
    try:
        return int(text) if int in kinds else float(text)
    except ValueError as error:
        kind = "a whole number" if int in kinds else "a number"
        raise ValueError(f"{option} is {text!r}: expected {kind}") from error


def _true_or_false(option: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{option} is {text!r}: expected true or false")
    return text == "true"


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ResolutionPolicy) else value
