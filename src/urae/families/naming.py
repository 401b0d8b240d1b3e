"""Two names for one tensor: diffusers', and those of the model's original repository, which other tools use.

The original fuses what diffusers keeps apart, and tools put prefixes before either name, or write "_" for ".". The
tables are the families' own (`names.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from urae.families.family import ModuleNames
from urae.families.registry import families

__all__ = ["Naming", "known_families", "original_of", "tables"]

INDEX = re.compile(r"(?<=[._])(0|[1-9]\d{0,3})(?=[._])")
"""A block's number; "#" stands for it in the tables below."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How the tensors of a file are called."""

    names: ModuleNames
    original: bool
    """Whether as in the original repository, rather than as in diffusers."""

    def modules(self, name: str) -> tuple[str, ...]:
        """The diffusers modules behind a name, written with "." or "_"; empty if there is none."""
        table = _spelled(self.names, self.original)
        if name in table:
            return table[name]
        found = INDEX.search(name)
        if found is None:
            return ()
        return tuple(part.replace("#", found[1]) for part in table.get(_generic(name, found), ()))

    def parameters(self, name: str) -> tuple[str, ...]:
        """The diffusers parameters behind a parameter's name; empty if there is none."""
        found = self.modules(name)
        if found and _is_parameter(found[0]):
            return found
        module, _, attribute = name.rpartition(".")
        parts = self.modules(module) if attribute in ("weight", "bias") else ()
        return tuple(f"{part}.{attribute}" for part in parts)

    def fits(self, name: str, shape: tuple[int, int]) -> bool:
        """Whether the module of this name has the shape (rows, columns) in this family, as far as that is known."""
        ratio = _spelled_ratios(self.names).get(INDEX.sub("#", name, count=1)) if self.original else None
        return ratio is None or math.isclose(shape[0], ratio * shape[1])

    def has_root(self, name: str) -> bool:
        """Whether a diffusers name, of a layer that the table leaves out, belongs to the family all the same."""
        return not self.original and name.split(".")[0] in {
            part.split(".")[0] for part in _holders(self.names)
        }


def tables() -> list[ModuleNames]:
    """The tables of all families that have one; several families may share theirs."""
    return list(dict.fromkeys(family.names for family in families() if family.names))


def known_families(listed: Iterable[ModuleNames]) -> str:
    """The families that have these tables, for a sentence."""
    chosen = list(listed)
    return ", ".join(family.name for family in families() if family.names in chosen)


def original_of(name: str, names: ModuleNames) -> tuple[str, tuple[str, ...]] | None:
    """The original module, or parameter, that holds a diffusers one, and all that it holds; None if there is none."""
    found = INDEX.search(name)
    for generic, index in ((name, ""), (_generic(name, found), found[1] if found else "")):
        if generic in _holders(names):
            original, parts = _holders(names)[generic]
            return original.replace("#", index), tuple(part.replace("#", index) for part in parts)
    module, _, attribute = name.rpartition(".")
    if attribute not in ("weight", "bias") or (holder := original_of(module, names)) is None:
        return None
    return f"{holder[0]}.{attribute}", tuple(f"{part}.{attribute}" for part in holder[1])


def _generic(name: str, index: re.Match[str] | None) -> str:
    return f"{name[: index.start()]}#{name[index.end() :]}" if index else name


def _is_parameter(name: str) -> bool:
    return name.endswith((".weight", ".bias"))


@cache
def _originals(names: ModuleNames) -> dict[str, tuple[str, ...]]:
    """Original name -> the diffusers names it holds."""
    held: dict[str, tuple[str, ...]] = {name: (top,) for name, top in names.top.items()}
    for listed, (block, modules) in names.blocks.items():
        for name, parts in modules.items():
            held[f"{listed}.#.{name}"] = tuple(f"{block}.#.{part}" for part in parts)
    return held


@cache
def _holders(names: ModuleNames) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Diffusers name -> the original name that holds it, and all that this holds."""
    return {part: (name, parts) for name, parts in _originals(names).items() for part in parts}


@cache
def _spelled_ratios(names: ModuleNames) -> dict[str, float]:
    return {name.replace(".", "_"): ratio for name, ratio in names.ratios.items()} | dict(names.ratios)


@cache
def _spelled(names: ModuleNames, original: bool) -> dict[str, tuple[str, ...]]:
    """Names as files have them -> diffusers names."""
    table = _originals(names) if original else {part: (part,) for part in _holders(names)}
    return {name.replace(".", "_"): parts for name, parts in table.items()} | table
