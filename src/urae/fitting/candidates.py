"""The policies that are measured: each rule for positions at each scale, with and without proportional attention.

They share the timestep shift of the checkpoint. At a fixed noise level the shift acts on nothing, so the velocity error
cannot tell shifts apart, in drawing or in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from urae.fitting.request import FittingRequest
from urae.resolution import ResolutionPolicy, native_size, pixels_per_token, size_scale

__all__ = ["STOCK", "candidates_for", "rule_of"]

STOCK = "stock positions"
"""What every other policy is shown against."""

PROPORTIONAL = ", proportional"


def candidates_for(
    pipe: Any, request: FittingRequest, more: Mapping[str, ResolutionPolicy]
) -> dict[str, ResolutionPolicy]:
    """Name -> policy, stock positions first, then those of the request's rules, then `more`. `ValueError` for a size
    that is not above the native one, a factor that leaves no scale, and a name that is taken."""
    scale = size_scale(pipe, request.size)
    if scale <= 1:
        raise ValueError(
            f"size is {request.size}: expected one above the native size, {native_size(pipe)} px, where no policy "
            "is needed"
        )
    native = ResolutionPolicy.for_size(pipe, native_size(pipe))
    grid = native_size(pipe) // pixels_per_token(pipe)
    made = {STOCK: native, STOCK + PROPORTIONAL: replace(native, proportional=True)}
    for rule in request.rules:
        for factor in request.factors:
            made |= _by_rule(native, rule, scale, factor, grid)
    if taken := sorted(made.keys() & more.keys()):
        raise ValueError(f"the candidate's name {taken[0]!r} is taken: give it another")
    return made | dict(more)


def rule_of(policy: ResolutionPolicy) -> str:
    """The rule for its positions, of `RULES`, or "stock"."""
    if policy.linear:
        return "linear"
    if policy.rope_clip:
        return "clipped"
    if policy.rope != "theta":
        return policy.rope
    return "stock" if policy.rope_scale == 1 else "theta"


def _by_rule(
    native: ResolutionPolicy, rule: str, scale: float, factor: float, grid: int
) -> Iterator[tuple[str, ResolutionPolicy]]:
    if scale * factor <= 1:
        raise ValueError(
            f"factor is {factor:g}: at {scale:g} times the native size expected more than {1 / scale:g}, which is no "
            "change at all"
        )
    settings = _settings(rule, scale * factor, grid)
    name = rule if factor == 1 else f"{rule} x {factor:g}"
    yield name, replace(native, **settings)
    if rule not in ("yarn", "dype"):  # which scale attention in their own way
        yield name + PROPORTIONAL, replace(native, **settings, proportional=True)


def _settings(rule: str, scale: float, grid: int) -> dict[str, Any]:
    # The base is raised as `ResolutionPolicy.for_size` does it: by less than `scale` the clip would act on nothing.
    raised = max(10.0, 2 * scale)
    by_rule: dict[str, dict[str, Any]] = {
        "linear": {"linear": True, "scale": scale},
        "theta": {"rope_scale": raised},
        "clipped": {"rope_scale": raised, "rope_clip": True, "scale": scale},
        "ntk": {"rope": "ntk", "scale": scale},
        "yarn": {"rope": "yarn", "scale": scale, "native_grid": grid},
        "dype": {"rope": "dype", "scale": scale, "native_grid": grid},
        "dype_ntk": {"rope": "dype_ntk", "scale": scale},
    }
    return by_rule[rule]
