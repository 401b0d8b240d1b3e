"""Several adapters that act together, each at a strength: a style or subject beside the one for the resolution.

Their updates are added up before anything touches the model, as `merge` adds them, and put on as one adapter. So the
order in which they are given changes no bit, and a matrix is rounded once, on whatever base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from urae.adapters.adapter import Adapter, Own
from urae.adapters.convert import PROCESSOR
from urae.adapters.files import MINI, file_named
from urae.adapters.merging import weighted_sum
from urae.adapters.targets import transformer_of
from urae.io import read_header
from urae.resolution import ResolutionPolicy

__all__ = ["AdapterFile", "Stack", "StackPart", "load_adapters", "one_or_stack"]


class AdapterFile(NamedTuple):
    """A file and the strength at which it is to act."""

    path: Path
    strength: float = 1.0

    @classmethod
    def of(cls, text: str | Path) -> AdapterFile:
        """What "FILE" or "FILE:STRENGTH" says. Read from the right, since a name may hold colons ("C:\\a.safetensors"),
        and a file that is there under the whole text is that file. "mini:2x" ships with the miniature."""
        before, _, after = str(text).rpartition(":")
        if before in ("", MINI) or Path(text).exists():
            return cls(Path(text))
        try:
            strength = float(after)
        except ValueError:
            if Path(before).exists():
                raise ValueError(
                    f"{after!r} is not a strength of {before}: expected FILE or FILE:STRENGTH, such as {before}:0.8"
                ) from None
            return cls(Path(text))
        return cls(Path(before), _checked(strength, before))


class StackPart(NamedTuple):
    """An adapter of a stack, and its strength."""

    adapter: Adapter
    strength: float = 1.0


@dataclass(frozen=True, eq=False)
class Stack:
    """Adapters on top of each other. `Stack([resolution, (style, 0.6)])`; an adapter alone has strength 1.

    ValueError for a strength that is 0 or not finite, for an adapter that is given twice, and for one beside another
    that was trained on top of it and contains it.
    """

    parts: Sequence[Any]
    """Adapters, or pairs of an adapter and its strength; then `StackPart`s."""

    def __post_init__(self) -> None:
        parts = tuple(_part(one) for one in self.parts)
        if not parts:
            raise ValueError("a stack of no adapters has no effect: give one or more")
        _check_apart(parts)
        object.__setattr__(self, "parts", parts)

    def __str__(self) -> str:
        return ", ".join(f"{adapter.name} at strength {strength:g}" for adapter, strength in self.parts)

    @property
    def policy(self) -> ResolutionPolicy | None:
        """That of the adapter which carries one. ValueError where two carry different ones."""
        carrying = [part.adapter for part in self.parts if part.adapter.policy is not None]
        for other in carrying[1:]:
            if other.policy != carrying[0].policy:
                raise ValueError(
                    f"{carrying[0].name} and {other.name} have different resolution policies, and only one can apply: "
                    "say which by policy, as a JSON file, or leave one adapter out"
                )
        return carrying[0].policy if carrying else None

    @cached_property
    def combined(self) -> Adapter:
        """The weighted sum as one adapter without a policy."""
        # In one order, as sums of floats depend on it.
        parts = sorted(self.parts, key=lambda part: part.adapter.hash)
        return weighted_sum([part.adapter for part in parts], [part.strength for part in parts])

    @property
    def hash(self) -> str:
        """Of all adapters and strengths, whatever their order: the combined adapter's."""
        return self.combined.hash

    @contextmanager
    def on(
        self, target: Any, *, policy: ResolutionPolicy | Own | None = "own", allow_other_base: bool = False
    ) -> Iterator[None]:
        """As `Adapter.on`, for all of them; each is checked against the model before anything is touched."""
        chosen = self.policy if policy == "own" else policy
        self.check(target, allow_other_base=allow_other_base)
        with ExitStack() as stack:
            stack.enter_context(self.combined.on(target, policy=None))
            if chosen is not None:
                stack.enter_context(chosen.on(target))
            yield

    def check(self, target: Any, *, allow_other_base: bool = False) -> None:
        """Raise `WrongBase` where one of them does not belong to the pipeline or transformer."""
        for part in self.parts:
            part.adapter.check(transformer_of(target), allow_other_base=allow_other_base)


def one_or_stack(adapters: Any) -> Adapter | Stack | None:
    """What a list of adapters, each alone or with a strength, comes to; an adapter, a stack or None stays as it is."""
    if adapters is None or isinstance(adapters, Adapter | Stack):
        return adapters
    stack = Stack(adapters)
    return stack.parts[0].adapter if [part.strength for part in stack.parts] == [1] else stack


def load_adapters(
    files: Sequence[AdapterFile], *, base: Any, start: Path | None = None
) -> Adapter | Stack | None:
    """The adapters in these files. `start` belongs to the one that was saved without it, if there are several.

    Raises what `Adapter.load` and `Stack` raise.
    """
    if not files:
        return None
    needy = [file for file in files if _lacks_its_start(file.path)] if start and len(files) > 1 else []
    loaded = [
        (
            Adapter.load(path, base=base, start=start if (path, strength) in (needy or files[:1]) else None),
            strength,
        )
        for path, strength in files
    ]
    return one_or_stack(loaded)


def _lacks_its_start(path: Path) -> bool:
    return any(PROCESSOR.fullmatch(key) for key in read_header(file_named(path)).tensors)


def _part(given: Any) -> StackPart:
    if isinstance(given, Adapter):
        return StackPart(given)
    if isinstance(given, Sequence) and len(given) == 2 and isinstance(given[0], Adapter):
        return StackPart(given[0], _checked(given[1], given[0].name))
    raise ValueError(f"{given!r} is not an adapter: expected an Adapter, or a pair of one and its strength")


def _checked(strength: Any, name: str) -> float:
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
        raise ValueError(f"the strength of {name} is {strength!r}: expected a finite number, such as 0.8")
    if strength == 0:
        raise ValueError(f"the strength of {name} is 0, at which it has no effect: leave it out")
    return float(strength)


def _check_apart(parts: Sequence[StackPart]) -> None:
    """Refuse to count an adapter twice."""
    hashes = [part.adapter.hash for part in parts] if len(parts) > 1 else []
    for place, digest in enumerate(hashes):
        name = parts[place].adapter.name
        if digest in hashes[:place]:
            raise ValueError(f"{name} is given twice: give it once, at the sum of the strengths")
        for part in parts:
            if part.adapter.start == digest:
                raise ValueError(
                    f"{part.adapter.name} was trained on top of {name} and contains it: leave {name} out"
                )
