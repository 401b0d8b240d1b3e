"""Which resolution policy a picture is drawn under: what a text stands for, and what "auto" comes to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from urae import resolution
from urae.resolution import ResolutionPolicy

if TYPE_CHECKING:
    from urae.adapters import Adapter, Stack

__all__ = ["policy_for", "policy_named"]

Named = ResolutionPolicy | Literal["auto", "none"]


def policy_named(
    policy: str | Path | ResolutionPolicy, *, option: str = "policy", words: Sequence[str] = ("auto", "none")
) -> Named:
    """The policy that a text stands for, "reference" or the name of a JSON file; `words` stay as they are."""
    if isinstance(policy, ResolutionPolicy) or policy in words:
        return policy  # type: ignore[return-value]
    if policy == "reference":
        return ResolutionPolicy.reference()
    if not str(policy).endswith(".json"):
        names = ", ".join(words)
        raise ValueError(f"{option} is {policy!r}: expected {names}, reference or the name of a JSON file")
    return ResolutionPolicy.read(policy)


def policy_for(
    pipe: Any,
    size: int | Sequence[int],
    *,
    adapter: Adapter | Stack | None = None,
    policy: Named = "auto",
) -> ResolutionPolicy | None:
    """The policy that `generate` uses with the direct method; None stands for stock behaviour.

    Other methods may change its timestep shift (`method.policy`).
    """
    if isinstance(policy, ResolutionPolicy):
        return policy
    if policy == "none":
        return None
    if adapter is not None and adapter.policy is not None:
        return adapter.policy
    active = resolution.active_policy(pipe)
    if active is not None or resolution.size_scale(pipe, size) <= 1:
        return active
    return ResolutionPolicy.for_size(pipe, size)
