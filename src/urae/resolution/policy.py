"""The resolution policy: how a model runs at a size it was not trained for.

One frozen object says everything, and the recipe, the adapter file and the sampler share it, so that a model
is never sampled otherwise than it was trained unless somebody asks for it. `policy.on(pipe)` changes two
objects of a stock pipeline, its transformer's position embedding and its scheduler, and puts both back. Nothing
here needs torch until it is put on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from urae import resolution
from urae.errors import BadFile
from urae.families.registry import family_of
from urae.io import parse_json_object, read_json_object
from urae.resolution.sizes import native_size, pixels_per_token, size_scale, text_tokens

__all__ = ["ResolutionPolicy", "Rope"]

Rope = Literal["theta", "ntk", "yarn", "dype", "dype_ntk"]
"""Rules for the rotary frequencies."""


@dataclass(frozen=True, kw_only=True)
class ResolutionPolicy:
    """What to change in a model that runs above its native size. The defaults change nothing but the shift.

    Raises ValueError for a value out of range and for a setting that would have no effect.
    """

    rope_scale: float = 1.0
    """Factor k > 0 on the base theta of the rotary frequencies; 10 in the reference, for a theta of 10,000."""
    rope_clip: bool = False
    """Lower no frequency by more than `scale`: omega_i = max((theta k)^-s, theta^-s / scale) (I-Max)."""
    linear: bool = False
    """Linear position interpolation: image positions divided by `scale`."""
    rope: Rope = "theta"
    """Rule for the frequencies: "theta" is the three settings above; "ntk" (theta x scale^(d / (d - 2))), "yarn", and
    "dype" and "dype_ntk" (these two by the noise level of each step) depend on `scale` alone and cannot be combined
    with them."""
    native_grid: int = 64
    """Native tokens along a side, for "yarn" and "dype": 64 for FLUX.1."""
    scale: float = 1.0
    """Size over native size, geometric mean of the two axes, 1 or more; for all but plain theta scaling."""
    proportional: bool = False
    """Proportional attention: logits scaled by sqrt(log_T L), L the text and image tokens of the call."""
    native_tokens: int = 4608
    """T: text and image tokens at the native size, 2 or more."""
    shift: float = 3.0
    """Static timestep shift a > 0: sigma -> a sigma / (1 + (a - 1) sigma)."""
    exact_ids: bool = True
    """Keep image positions in fp32; stock bf16 pipelines merge odd positions above 256 (4096 px)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), type(field.default))
        _check_ranges(self)
        _check_effects(self)

    def __str__(self) -> str:
        """What it changes, in words; `to_json` has every setting."""
        if self.rope != "theta":
            parts = [f"{self.rope} frequencies at scale {self.scale:g}"]
        else:
            clip = f", lowered {self.scale:g} times at most" if self.rope_clip else ""
            parts = [f"rope theta x {self.rope_scale:g}{clip}"] if self.rope_scale != 1 else []
            parts += [f"positions divided by {self.scale:g}"] if self.linear else []
        if self.proportional:
            parts.append(f"attention in proportion to {self.native_tokens} tokens")
        return ", ".join([*(parts or ["stock positions"]), f"timestep shift {self.shift:g}"])

    @property
    def needs_sigma(self) -> bool:
        """Whether the tables depend on the noise level of each call."""
        return self.rope.startswith("dype")

    @contextmanager
    def on(self, target: Any) -> Iterator[None]:
        """Run a stock pipeline, or its bare transformer, under this policy; everything is undone on exit.

        Inside another policy on the same target this one takes its place until exit. On a transformer `shift`
        has nothing to act on. Compiled, offloaded and checkpointed models are fine. `ValueError` for a model family
        that is not supported, before anything is changed.
        """
        family_of(target)
        with resolution.policy_on(target, self):
            yield

    @classmethod
    def reference(cls) -> ResolutionPolicy:
        """What the published code effectively does to FLUX.1-dev at every size."""
        return cls(rope_scale=10.0, proportional=True, native_tokens=4608, shift=3.0, exact_ids=False)

    @classmethod
    def for_size(cls, pipe: Any, size: int | Sequence[int]) -> ResolutionPolicy:
        """The corrected default for `pipe` at `size`, (width, height) in pixels.

        Above native size: clipped theta scaling and proportional attention, or linear interpolation for a
        model whose native grid is too small for theta scaling. At or below it: only the static shift, which
        is the checkpoint's own (3.0 for FLUX.1-dev, 1.0 for schnell).
        """
        grid = native_size(pipe) // pixels_per_token(pipe)
        scale = size_scale(pipe, size)
        native = cls(native_tokens=text_tokens(pipe) + grid * grid, shift=resolution.own_shift(pipe))
        if scale <= 1:
            return native
        factor = family_of(pipe).rotary.theta_scale
        positions = _positions(grid, scale, factor)
        return cls(**{**asdict(native), **positions, "scale": scale, "proportional": True})

    def to_dict(self) -> dict[str, Any]:
        """All settings by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> ResolutionPolicy:
        """The policy with these settings; what is missing keeps its default, an unknown name is refused."""
        valid = [field.name for field in fields(cls)]
        unknown = [name for name in settings if name not in valid]
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise ValueError(f"a resolution policy has no {names}: valid settings are {', '.join(valid)}")
        return cls(**settings)

    def to_json(self) -> str:
        """One line of JSON, as adapter files and PNGs carry it."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> ResolutionPolicy:
        """The inverse of `to_json`. `BadFile` for what is no JSON object."""
        return cls.from_dict(parse_json_object(text, name="a resolution policy in JSON"))

    @classmethod
    def read(cls, path: str | Path) -> ResolutionPolicy:
        """The policy in a JSON file. `BadFile` for what holds none."""
        settings = read_json_object(path)
        try:
            return cls.from_dict(settings)
        except ValueError as error:
            raise BadFile(f"{path} is not a resolution policy: {error}") from error


def _positions(grid: int, scale: float, theta_scale: float) -> dict[str, Any]:
    # The fastest frequency repeats every 2 pi tokens. A model whose native grid held less than two such turns
    # has learnt to read places from it; scaling theta leaves it alone and objects repeat with it.
    if grid < 4 * math.pi:
        return {"linear": True}
    # A base raised by less than `scale` lowers no frequency by `scale`, and the clip would have no effect.
    return {"rope_scale": max(theta_scale, 2 * scale), "rope_clip": True}


def _check_type(name: str, value: Any, expected: Any) -> None:
    accepted: Any = (int, float) if expected is float else (expected,)
    is_wrong_bool = isinstance(value, bool) and expected is not bool
    is_infinite = expected is not str and isinstance(value, accepted) and not math.isfinite(value)
    if is_wrong_bool or not isinstance(value, accepted) or is_infinite:
        kinds = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a name"}
        kind = kinds[expected]
        raise ValueError(f"{name} is {value!r}: expected {kind}")


def _check_ranges(policy: ResolutionPolicy) -> None:
    if policy.rope_scale <= 0:
        raise ValueError(f"rope_scale is {policy.rope_scale}: expected a factor above 0, such as 10")
    if policy.scale < 1:
        raise ValueError(f"scale is {policy.scale}: expected size / native size, 1 or more")
    if policy.rope not in get_args(Rope):
        raise ValueError(f"rope is {policy.rope!r}: expected one of {', '.join(get_args(Rope))}")
    if policy.native_grid < 1:
        raise ValueError(f"native_grid is {policy.native_grid}: expected 1 or more, such as 64 for FLUX.1")
    if policy.native_tokens < 2:
        raise ValueError(
            f"native_tokens is {policy.native_tokens}: expected 2 or more, such as 4608 for FLUX.1"
        )
    if policy.shift <= 0:
        raise ValueError(f"shift is {policy.shift}: expected a static timestep shift above 0, such as 3.0")


def _check_effects(policy: ResolutionPolicy) -> None:
    for name in ("rope_clip", "linear"):
        if getattr(policy, name) and policy.scale == 1:
            raise ValueError(
                f"{name} has no effect at scale 1: set scale to size / native size, or leave {name} out"
            )
    if policy.rope_clip and policy.linear:
        raise ValueError(
            "rope_clip has no effect with linear, which divides every frequency by scale: choose one"
        )
    if policy.rope_clip and policy.rope_scale <= policy.scale:
        raise ValueError(
            f"rope_clip has no effect at rope_scale {policy.rope_scale} and scale {policy.scale}: "
            "it acts only where rope_scale exceeds scale, such as 10"
        )
    if policy.rope != "theta":
        _check_rule(policy)
    elif policy.scale > 1 and not (policy.rope_clip or policy.linear):
        raise ValueError(
            f"scale {policy.scale} has no effect without rope_clip or linear: set one, or leave it out"
        )
    if policy.native_grid != 64 and policy.rope not in ("yarn", "dype"):
        raise ValueError(
            f"native_grid {policy.native_grid} has no effect with rope {policy.rope!r}: it is for yarn and dype"
        )


def _check_rule(policy: ResolutionPolicy) -> None:
    """A rule for the frequencies leaves nothing to the settings beside it."""
    for name in ("rope_scale", "rope_clip", "linear"):
        if getattr(policy, name) != getattr(ResolutionPolicy, name):
            raise ValueError(
                f"{name} has no effect with rope {policy.rope!r}, which sets every frequency by scale: choose one"
            )
    if policy.scale == 1:
        raise ValueError(f"rope {policy.rope!r} has no effect at scale 1: set scale to size / native size")
    if policy.proportional and policy.rope in ("yarn", "dype"):
        raise ValueError(
            f"proportional would be stacked on the attention scaling that {policy.rope} brings along: "
            "leave proportional out, or take ntk or dype_ntk, which do not scale attention"
        )
