"""What changes in a model above its native size: the settings of `urae.ResolutionPolicy`, under the same names.

This package is copied into ComfyUI by itself, so it imports nothing of `urae`; `tests/comfyui` holds both to the same
settings, the same refusals and the same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .models import FLUX_1, Family

__all__ = ["ByHand", "Policy", "policy_of_metadata"]

RULES = ("theta", "ntk", "yarn", "dype", "dype_ntk")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """As `urae.ResolutionPolicy`; docs/concepts/resolution.md explains each setting.

    Raises ValueError for a value out of range and for a setting that would have no effect.
    """

    rope_scale: float = 1.0
    rope_clip: bool = False
    linear: bool = False
    rope: str = "theta"
    native_grid: int = FLUX_1.native_grid
    scale: float = 1.0
    proportional: bool = False
    native_tokens: int = FLUX_1.native_tokens
    shift: float = 3.0
    exact_ids: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), type(field.default))
        _check_ranges(self)
        for wrong, sentence in _without_effect(self):
            if wrong:
                raise ValueError(sentence)

    @property
    def needs_sigma(self) -> bool:
        """Whether the tables depend on the noise level of each call."""
        return self.rope.startswith("dype")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Policy:
        """The policy with these settings; what is missing keeps its default, an unknown name is refused."""
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in settings if name not in known]:
            raise ValueError(
                f"a resolution policy has no {', '.join(map(repr, unknown))}: valid settings are {', '.join(known)}"
            )
        return cls(**settings)

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """From what `urae adapter show`, an adapter file or a PNG says of its policy."""
        try:
            settings = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"the policy is no JSON ({error}): expected an object of settings") from error
        if not isinstance(settings, dict):
            raise ValueError(f"the policy is {settings!r}: expected a JSON object of settings")
        return cls.from_dict(settings)


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """A rule, and the size left to the latents: `policy` fills in what depends on it."""

    family: Family
    """Of the model that it is for."""
    rule: str = "clip"
    rope_scale: float = 0.0
    """0: the family's own, or twice the scale where that is more; for the rules clip and theta alone."""
    scale: float = 0.0
    """0: from the latents, the geometric mean of their sides over the native one."""
    proportional: str = "auto"
    """on, off, or auto: on above the native size, but off for yarn and dype, which scale the attention themselves."""
    shift: float = 0.0
    """0: the family's own."""

    def __post_init__(self) -> None:
        if self.rope_scale and self.rule not in ("clip", "theta"):
            raise ValueError(
                f"rope_scale {self.rope_scale:g} has no effect with the rule {self.rule}, which goes by the scale "
                "alone: leave it at 0"
            )
        if self.scale and self.rule == "theta":
            raise ValueError(
                f"scale {self.scale:g} has no effect with the rule theta, which multiplies theta by rope_scale: "
                "leave it at 0"
            )
        self.policy(self.scale or 2.0)  # what is wrong at one size is said before the sampler runs

    def policy(self, scale: float) -> Policy:
        """For latents `scale` times as large as the native ones, unless the scale was set."""
        scale = self.scale or scale
        always: dict[str, Any] = {
            "native_tokens": self.family.native_tokens,
            "shift": self.shift or self.family.shift,
        }
        if scale <= 1:
            return Policy(**always, proportional=self.proportional == "on")
        automatic = self.rule not in ("yarn", "dype")
        proportional = automatic if self.proportional == "auto" else self.proportional == "on"
        return Policy(**always, **self._positions(scale), proportional=proportional)

    def _positions(self, scale: float) -> dict[str, Any]:
        raised = self.rope_scale or max(self.family.theta_scale, 2 * scale)
        if self.rule == "theta":
            return {"rope_scale": raised}
        if self.rule == "clip":
            return {"rope_scale": raised, "rope_clip": True, "scale": scale}
        if self.rule == "linear":
            return {"linear": True, "scale": scale}
        grid = {"native_grid": self.family.native_grid} if self.rule in ("yarn", "dype") else {}
        return {"rope": self.rule, "scale": scale, **grid}


def policy_of_metadata(metadata: Mapping[str, str] | None, *, name: str) -> Policy:
    """The policy that an adapter file carries in its metadata, under the key "urae"."""
    described = json.loads((metadata or {}).get("urae", "{}"))
    if not described.get("policy"):
        raise ValueError(
            f"{name} carries no resolution policy: load it with LoraLoaderModelOnly, and set one by the node URAE "
            "policy"
        )
    return Policy.from_dict(described["policy"])


def _check_type(name: str, value: Any, expected: type) -> None:
    fitting = isinstance(value, (int, float) if expected is float else expected)
    if not fitting or (isinstance(value, bool) and expected is not bool):
        kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}[expected]
        raise ValueError(f"{name} is {value!r}: expected {kind}")
    if expected is float and not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}: expected a finite number")


def _check_ranges(policy: Policy) -> None:
    if policy.rope not in RULES:
        raise ValueError(f"rope is {policy.rope!r}: expected one of {', '.join(RULES)}")
    for name, lowest in (("scale", 1), ("native_grid", 1), ("native_tokens", 2)):
        if getattr(policy, name) < lowest:
            raise ValueError(f"{name} is {getattr(policy, name)}: expected {lowest} or more")
    for name in ("rope_scale", "shift"):
        if getattr(policy, name) <= 0:
            raise ValueError(f"{name} is {getattr(policy, name)}: expected a number above 0")


def _without_effect(policy: Policy) -> list[tuple[bool, str]]:
    """What would change nothing, or be stacked on what does the same, and how to say so."""
    p, by_theta = policy, policy.rope == "theta"
    set_by_rule = p.rope_scale != 1 or p.rope_clip or p.linear
    return [
        (
            p.scale == 1 and (p.rope_clip or p.linear or not by_theta),
            "rope_clip, linear and the rules have no effect at scale 1: set scale to size / native size",
        ),
        (p.rope_clip and p.linear, "rope_clip has no effect with linear: choose one"),
        (
            p.rope_clip and p.rope_scale <= p.scale,
            f"rope_clip acts only where rope_scale ({p.rope_scale:g}) exceeds scale ({p.scale:g})",
        ),
        (
            not by_theta and set_by_rule,
            f"rope {p.rope!r} sets every frequency by scale: leave rope_scale, rope_clip and linear out",
        ),
        (
            by_theta and p.scale > 1 and not (p.rope_clip or p.linear),
            f"scale {p.scale:g} has no effect without rope_clip or linear: set one, or leave it out",
        ),
        (
            p.proportional and p.rope in ("yarn", "dype"),
            f"proportional would be stacked on the attention scaling that {p.rope} brings along: leave it out",
        ),
        (
            p.native_grid != FLUX_1.native_grid and p.rope not in ("yarn", "dype"),
            f"native_grid {p.native_grid} has no effect with rope {p.rope!r}: it is for yarn and dype",
        ),
    ]
