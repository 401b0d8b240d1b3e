"""What a package exports, imported when it is first used: torch takes seconds to import, diffusers more."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazily"]


def lazily(
    package: str, homes: Mapping[str, Sequence[str]], *, modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The package's `__getattr__` and `__dir__`: the names that each module in it is the home of, and whole modules.
    A home with a dot, such as "urae.families", is another package.

    No other module may have the name of an export: once imported, it would stand in the export's place.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def exported(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = home_of[name]
        return getattr(importlib.import_module(home if "." in home else f"{package}.{home}"), name)

    return exported, lambda: sorted([*home_of, *modules])
