"""What an enlargement comes to with one model, and the run: SDEdit from the enlarged picture, or I-Max along it.

Up to a change below 1 the picture is taken back to that noise level and drawn on from there (`Sdedit`), so its layout
and more or less of its surface stay. At 1 it is drawn from fresh noise, and only its low frequencies lead (`Imax`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from urae.collecting.answers import judged
from urae.collecting.captioner import Captioner
from urae.enlarging.asking import EnlargeRequest
from urae.enlarging.shape import Fit, fitted
from urae.errors import UraeError
from urae.families import SIDE, family_of
from urae.generation import DrawingPlan, DrawingRequest, Imax, Sdedit, Tiled, plan_drawing
from urae.generation.tiled import windowed
from urae.io import read_bytes, read_picture
from urae.provenance import Provenance
from urae.resolution import ResolutionPolicy, pixels_per_token

__all__ = ["EnlargePlan", "described", "plan_enlarging"]

GUIDANCE = 3.5
"""Where nobody gives a scale: that of direct pictures, since a stronger one changes more."""


@dataclass(frozen=True, kw_only=True)
class EnlargePlan:
    """An enlargement to be drawn, once for each seed. As text it is what a user is told before it runs."""

    asked: EnlargeRequest
    fit: Fit
    before: Image.Image = field(repr=False)
    """The picture at its new size, by interpolation alone."""
    mask: Image.Image | None = field(repr=False)
    """White where the model draws, at the new size; None for everywhere."""
    drawing: DrawingPlan = field(repr=False)
    """Of the padded picture."""

    def __str__(self) -> str:
        way = self.drawing.asked.method
        seen = "in windows of its native size" if self.asked.tiles else "as a whole"
        return f"{self.fit}\nchange: {self.asked.amount:g}, by {way.name}, {seen}\n{self.drawing}"  # type: ignore[union-attr]

    @property
    def made(self) -> list[Provenance]:
        """What each picture will say about itself."""
        return [replace(one, **self._told) for one in self.drawing.made]

    @property
    def num_steps(self) -> int:
        """Denoising steps of all pictures."""
        return self.drawing.num_steps

    def only(self, places: Any) -> EnlargePlan:
        """The plan for some of the pictures, by their places in the list."""
        return replace(self, drawing=self.drawing.only(places))

    def run(
        self,
        *,
        on_step: Callable[[], None] = lambda: None,
        on_image: Callable[[Image.Image], None] = lambda image: None,
    ) -> list[Image.Image]:
        """Draw them; `on_image` is called with each as soon as it is there."""
        pictures = []

        def finish(drawn: Image.Image) -> None:
            picture = self.fit.cropped(drawn)
            if self.mask is not None:
                picture = Image.composite(picture, self.before, self.mask)
            told = {str(key): text for key, text in drawn.info.items() if isinstance(text, str)}
            picture.info.update(replace(Provenance.from_info(told), **self._told).to_info())
            pictures.append(picture)
            on_image(picture)

        self.drawing.run(on_step=on_step, on_image=finish)
        return pictures

    @property
    def _told(self) -> dict[str, Any]:
        name = Path(self.asked.picture).name if isinstance(self.asked.picture, str | Path) else "given"
        enlarged: dict[str, Any] = {
            "change": self.asked.amount,
            "tiles": self.asked.tiles,
            "from": list(self.fit.source),
            "drawn": list(self.fit.drawn),
        }
        if self.mask is not None:
            enlarged["mask"] = hashlib.sha256(self.mask.tobytes()).hexdigest()
        return {"size": self.fit.size, "native_file": name, "enlarged": enlarged}


def plan_enlarging(pipe: Any, asked: EnlargeRequest, **drawing: Any) -> EnlargePlan:
    """Decide how a stock pipeline enlarges a picture. `drawing` are fields of a `DrawingRequest`: adapter, policy,
    seed, steps, guidance, negative, memory, offload, decode, speed, compile.

    ValueError for a size, mask or setting that cannot be followed, before anything is computed.
    """
    picture = _opened(asked.picture)
    multiple = max(SIDE, pixels_per_token(pipe))
    fit = fitted(picture.size, scale=asked.scale, size=asked.sides, crop=asked.crop, multiple=multiple)
    before = fit.enlarged(picture)
    mask = None if asked.mask is None else _mask(pipe, asked, picture, fit)
    if drawing.get("guidance", "auto") == "auto":
        drawing["guidance"] = family_of(pipe).guidance.usual(pipe, GUIDANCE)
    request = DrawingRequest(
        prompt=asked.prompt, size=fit.drawn, method=_method(asked), native=fit.padded(before), **drawing
    )
    plan = plan_drawing(pipe, request)
    if mask is not None:
        padded = fit.padded(mask)
        plan = replace(plan, images=tuple(replace(one, mask=padded) for one in plan.images))
    return EnlargePlan(asked=asked, fit=fit, before=before, mask=mask, drawing=plan)


def described(picture: Path, captioner: Captioner) -> str:
    """What a vision-language model says that the picture shows. `UraeError` for an answer that is no caption."""
    key = captioner.key(hashlib.sha256(read_bytes(picture)).hexdigest())
    reply = captioner.describe(captioner.connect(), picture, key=key)
    answer = judged(reply.text, reply.finish_reason)
    if answer.outcome != "caption":
        raise UraeError(
            f"{captioner.model} gives no caption of {picture}: {answer.reason}; give a prompt instead"
        )
    return answer.text


@dataclass(frozen=True, kw_only=True)
class _InWindows(Sdedit):
    """SDEdit whose transformer sees windows of its native size."""

    def policy(self, policy: ResolutionPolicy | None) -> ResolutionPolicy | None:
        """Only the shift of the given one, since positions are native within a window."""
        return Tiled().policy(policy)

    def draw(self, pipe: Any, request: Any, *, on_step: Callable[[], None]) -> Image.Image:
        """As in the base class."""
        with windowed(pipe, Tiled(), size=request.size):
            return super().draw(pipe, request, on_step=on_step)


def _method(asked: EnlargeRequest) -> Sdedit | Imax:
    if asked.amount == 1:
        return Imax()
    return (_InWindows if asked.tiles else Sdedit)(start_sigma=asked.amount)


def _opened(picture: Path | str | Image.Image) -> Image.Image:
    return (
        picture.convert("RGB") if isinstance(picture, Image.Image) else read_picture(picture).convert("RGB")
    )


def _mask(pipe: Any, asked: EnlargeRequest, picture: Image.Image, fit: Fit) -> Image.Image:
    """The mask at the new size, black and white."""
    family = family_of(pipe)
    if not getattr(family.pipelines, "inpaint", ""):
        raise ValueError(f"mask: diffusers has no pipeline of {family.name} for a region: leave the mask out")
    mask = _opened(asked.mask).convert("L")  # type: ignore[arg-type]
    if mask.size != picture.size:
        raise ValueError(
            f"the mask is {mask.width}x{mask.height}, the picture {picture.width}x{picture.height}: expected one size"
        )
    whole = fit.enlarged(mask).point(lambda value: 255 if value >= 128 else 0)
    if whole.getextrema()[1] == 0:
        raise ValueError("the mask is black everywhere, so that nothing may change: paint white what may")
    return whole
