"""What a request comes to with one model on this machine: everything that decides the pictures, decided once.

Each picture is made by itself, from its own generator on the CPU, so that it depends on its prompt and seed alone and
not on what else was asked for. Whatever decides its pixels is written into `image.info`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from urae.adapters import Adapter, Stack
from urae.errors import UraeError
from urae.execution import (
    MemoryPlan,
    SpeedPlan,
    context_group,
    num_groups,
    plan_memory,
    plan_speed,
    speed_text,
    this_process,
)
from urae.execution.rounding import stored_as
from urae.execution.token_sharing import context_parallel as tokens_shared
from urae.families import family_of, model_name
from urae.generation.asking import DrawingRequest
from urae.generation.direct import Direct
from urae.generation.methods import options_of
from urae.generation.native import (
    Native,
    Natives,
    TwoPass,
    check_shape,
    native_pass,
    native_picture_size,
    picture_hash,
)
from urae.generation.policies import policy_for
from urae.generation.request import Request
from urae.io import read_picture
from urae.provenance import AdapterUse, Provenance, versions
from urae.resolution import (
    ResolutionPolicy,
    Size,
    dynamic_shift,
    native_size,
    warn_dynamic_shift,
    without_policy,
)

__all__ = ["DrawingPlan", "plan_drawing"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DrawingPlan:
    """Pictures to be made with one pipeline, and how. As text it is what a user is told before it runs."""

    pipe: Any = field(repr=False, compare=False)
    asked: DrawingRequest
    policy: ResolutionPolicy | None
    """Of the pass at this size; None stands for stock behaviour."""
    memory: MemoryPlan
    speed: SpeedPlan
    """Of the pass at this size; native pictures are drawn exactly, uncompiled."""
    images: tuple[Request, ...]
    """All seeds of the first prompt first; without the native pictures that are still to be drawn."""

    def __str__(self) -> str:
        way: Any = self.asked.method
        shift = self.policy.shift if self.policy else dynamic_shift(self.pipe, self.size)
        said = way.describe(steps=self.asked.num_steps, shift=shift)
        stack = self.asked.adapter
        lines = [f"adapters: {stack}"] if isinstance(stack, Stack) else []
        lines += [f"policy: {self.policy or 'none'}", f"memory: {self.memory}"]
        lines += [f"{way.name}: {said}"] if said else []
        return "\n".join([*lines, f"speed: {self.speed}"])

    @property
    def size(self) -> Size:
        """(width, height) in pixels."""
        return self.asked.size  # type: ignore[return-value]

    @property
    def num_steps(self) -> int:
        """Denoising steps of all passes."""
        native = self.asked.method.native_steps if self._draws_natives else 0  # type: ignore[union-attr]
        return len(self.images) * (native + self.asked.num_steps)

    @property
    def made(self) -> list[Provenance]:
        """What each picture will say about itself, but for the hash of a native picture that is still to be drawn."""
        return [self._provenance(image) for image in self.images]

    def only(self, places: Sequence[int]) -> DrawingPlan:
        """The plan for some of the pictures, by their places in the list."""
        images = tuple(self.images[place] for place in places)
        return replace(self, images=images, speed=_speed(self.pipe, self.asked, self.memory, len(images)))

    def run(
        self,
        *,
        on_step: Callable[[], None] = lambda: None,
        on_native: Callable[[Image.Image], None] = lambda image: None,
        on_image: Callable[[Image.Image], None] = lambda image: None,
    ) -> list[Image.Image]:
        """Make the pictures. `on_step` is called after each denoising step of both passes (those of a kept native
        picture count at once), `on_native` with each native picture, `on_image` with each finished one."""
        way: Any = self.asked.method
        group = context_group(self.asked.context_parallel)
        images = self._with_natives(on_step, on_native) if self._draws_natives else self.images
        logger.info("memory: %s", self.memory)
        logger.info("speed: %s", self.speed)
        pictures = []
        with self._in_place(group), self.speed.on(self.pipe, self.size) as kernels:
            if self.policy is None and way.steps and images:
                warn_dynamic_shift(self.pipe, self.size, steps=self.asked.num_steps)
            for image in images:
                with self.speed.drawing(self.pipe, on_step) as step_done, _finite(image):
                    picture = way.draw(self.pipe, image, on_step=step_done)
                picture.info.update(self._provenance(image).to_info() | kernels)
                on_image(picture)
                pictures.append(picture)
        return pictures

    @property
    def _draws_natives(self) -> bool:
        return bool(self.images) and isinstance(self.asked.method, TwoPass) and self.asked.native is None

    @contextmanager
    def _in_place(self, group: Any) -> Iterator[None]:
        """Adapter, policy, sharing of tokens and memory plan on the pipeline."""
        pipe, adapter = self.pipe, cast("Adapter | Stack | None", self.asked.adapter)
        with ExitStack() as stack:
            # The adapter comes before the plan: weights that are offloaded layer by layer cannot be recognised.
            if adapter is not None:
                stack.enter_context(adapter.on(pipe, policy=None))
            stack.enter_context(without_policy(pipe) if self.policy is None else self.policy.on(pipe))
            if group:
                stack.enter_context(tokens_shared(pipe.transformer, group))
            stack.enter_context(self.memory.on(pipe))
            yield

    def _with_natives(
        self, on_step: Callable[[], None], on_native: Callable[[Image.Image], None]
    ) -> list[Request]:
        """A native pass for each picture, from the folder or made now."""
        way, pipe = self.asked.method, self.pipe
        assert isinstance(way, TwoPass)
        size = native_picture_size(pipe, self.size)
        # What decodes in tiles or strips at the large size fits as a whole at the native one.
        memory = replace(
            plan_memory(pipe, size) if _is_free(self.asked) else self.memory,
            decode="whole",
        )
        kept = None if self.asked.natives is None else Natives.of(pipe, self.asked.natives)

        def make(**settings: Any) -> Image.Image:
            there = replace(memory, offload="unchanged")
            asked = DrawingRequest(**settings, memory=there, compile=False)
            return plan_drawing(pipe, asked).run(on_step=on_step)[0]

        images = []
        with memory.on(pipe):
            for image in self.images:
                settings = way.native_settings(image, size)
                one = kept.find(settings, with_path=way.needs_path) if kept else None
                if one:
                    for _ in range(way.native_steps):
                        on_step()
                else:
                    one = native_pass(make, settings, with_path=way.needs_path)
                    if kept:
                        kept.keep(settings, one)
                on_native(one.picture)
                images.append(_starting(image, one))
        return images

    def _provenance(self, image: Request) -> Provenance:
        pipe = self.pipe
        return Provenance(
            prompt=image.prompt,
            negative=image.negative,
            seed=image.seed,
            size=image.size,
            steps=image.steps,
            guidance=image.guidance if _takes_guidance(pipe) else None,
            method=self.asked.method.name,  # type: ignore[union-attr]
            options=options_of(self.asked.method),
            native=picture_hash(image.native) if image.native else "",
            native_file=image.native_file,
            policy=self.policy,
            **_told(self.asked.adapter),
            model=model_name(pipe),
            base_weights=stored_as(pipe),
            memory=str(self.memory),
            speed=speed_text(self.speed.cache),
            versions=versions(),
            dtype=str(pipe.transformer.dtype).removeprefix("torch."),
        )


def plan_drawing(pipe: Any, asked: DrawingRequest) -> DrawingPlan:
    """Decide how a stock pipeline makes what is asked.

    ValueError for a size, method or setting that this model or machine cannot follow, before anything is computed.
    """
    _check_guidance(pipe, asked)
    asked = _with_guidance(pipe, asked)
    _check_negative(pipe, asked)
    way: Any = asked.method
    if isinstance(way, TwoPass):
        way.check(pipe, asked.size)  # type: ignore[arg-type]
    if asked.context_parallel != 1:
        num_groups(this_process().num_processes, asked.context_parallel)
    images = _images(asked)
    memory = _memory(pipe, asked)
    policy: Any = asked.policy
    return DrawingPlan(
        pipe=pipe,
        asked=asked,
        policy=way.policy(policy_for(pipe, asked.size, adapter=asked.adapter, policy=policy)),  # type: ignore[arg-type]
        memory=memory,
        speed=_speed(pipe, asked, memory, len(images)),
        images=images,
    )


def _told(adapter: Any) -> dict[str, Any]:
    """What a picture says about its adapters."""
    if not isinstance(adapter, Stack):
        return {
            "adapter_hash": adapter.hash if adapter else "",
            "adapter_file": adapter.file if adapter else "",
        }
    uses = tuple(
        AdapterUse(file=one.file, hash=one.hash, strength=strength) for one, strength in adapter.parts
    )
    return {"adapter_hash": adapter.hash, "adapter_file": "", "adapters": uses}


def _images(asked: DrawingRequest) -> tuple[Request, ...]:
    scale = asked.method.guidance if asked.guidance == "auto" else asked.guidance  # type: ignore[union-attr]
    settings: Any = {
        "size": asked.size,
        "steps": asked.num_steps,
        "guidance": scale,
        "negative": asked.negative,
    }
    images = [Request(prompt=text, seed=seed, **settings) for text in asked.prompts for seed in asked.seeds]
    if asked.native is None:
        return tuple(images)
    given = asked.natives_for(len(images))
    opened = [one if isinstance(one, Image.Image) else read_picture(one) for one in given]
    names = ["given" if isinstance(one, Image.Image) else Path(one).name for one in given]
    return tuple(
        _starting(image, Native(picture=check_shape(one, image.size)), file=name)
        for one, name, image in zip(opened, names, images, strict=True)
    )


def _starting(image: Request, native: Native, *, file: str = "") -> Request:
    return replace(image, native=native.picture, native_path=native.path, native_file=file)


def _is_free(asked: DrawingRequest) -> bool:
    """Whether all of the memory plan is left to us."""
    return asked.memory == asked.offload == asked.decode == "auto"


def _memory(pipe: Any, asked: DrawingRequest) -> MemoryPlan:
    """What is chosen for this machine and size, but for what the user decides."""
    if isinstance(asked.memory, MemoryPlan):
        return asked.memory
    plan = _partly_asked(pipe, asked)
    # Under torchrun each process has a device of its own.
    return replace(plan, device=str(this_process().device)) if plan.device == "cuda" else plan


def _partly_asked(pipe: Any, asked: DrawingRequest) -> MemoryPlan:
    size: Any = asked.size
    offload, decode = asked.offload, asked.decode
    if decode == "tiles" and max(size) <= native_size(pipe):
        raise ValueError(
            f"decode is 'tiles', but {size[0]}x{size[1]} is no larger than one tile, of {native_size(pipe)} px: "
            "leave it out"
        )
    plan = plan_memory(pipe, size)
    if offload == "auto":
        return plan if decode == "auto" else replace(plan, decode=decode, reason="as asked")
    if decode == "auto":
        # Layers that come one by one are none that strips know.
        decode = "tiles" if plan.decode == "strips" and offload == "sequential" else plan.decode
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return MemoryPlan(device=device, offload=offload, decode=decode)


def _speed(pipe: Any, asked: DrawingRequest, memory: MemoryPlan, num_images: int) -> SpeedPlan:
    return plan_speed(
        pipe,
        asked.size,  # type: ignore[arg-type]
        asked.speed,
        steps=asked.num_steps,
        num_images=num_images,
        compile=asked.compile,
        context_parallel=asked.context_parallel,
        memory=memory,
    )


def _check_guidance(pipe: Any, asked: DrawingRequest) -> None:
    usual = family_of(pipe).guidance.usual(pipe, Direct.guidance)
    if asked.guidance not in ("auto", usual) and not _takes_guidance(pipe):
        raise ValueError(
            f"guidance is {asked.guidance}, but this model takes no guidance scale: leave guidance out"
        )


def _with_guidance(pipe: Any, asked: DrawingRequest) -> DrawingRequest:
    """The request with its guidance scales in numbers."""
    usual, way = family_of(pipe).guidance.usual, asked.method
    if isinstance(way, TwoPass) and way.native_guidance == "auto":
        way = replace(way, native_guidance=usual(pipe, Direct.guidance))
    leave = asked.guidance != "auto" or way.steps == 0  # type: ignore[union-attr]
    return replace(asked, method=way, guidance=asked.guidance if leave else usual(pipe, way.guidance))  # type: ignore[union-attr]


def _check_negative(pipe: Any, asked: DrawingRequest) -> None:
    """Refuse a negative prompt that no pass takes."""
    if asked.negative and family_of(pipe).guidance.kind(pipe) != "cfg":
        raise ValueError(
            f"negative is {asked.negative!r}, but this model takes no negative prompt: leave it out; if it is from a "
            "picture, give an empty one, --negative ''"
        )
    scale: Any = asked.method.native_guidance if asked.guidance == "auto" else asked.guidance  # type: ignore[union-attr]
    if asked.negative and scale <= 1:
        raise ValueError(
            f"a negative prompt has no effect at guidance {scale:g}: leave it out, or set guidance above 1"
        )


def _takes_guidance(pipe: Any) -> bool:
    return family_of(pipe).guidance.kind(pipe) != "none"


@contextmanager
def _finite(image: Request) -> Iterator[None]:
    """The pipeline makes its picture of NaN too, black where they are, and numpy knows of it alone."""
    try:
        with np.errstate(invalid="raise"):
            yield
    except FloatingPointError as error:
        raise UraeError(
            f"the picture of seed {image.seed} holds values that are no numbers: take a wider dtype, such as bfloat16 "
            "for float16, or a smaller strength of the adapter"
        ) from error
