"""Images from prompts: the one entry point for every method, with or without an adapter.

Each image is made by itself, from its own generator on the CPU, so that it depends on its prompt and seed
alone and not on what else was asked for. Whatever decides its pixels is written into `image.info`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from urae.adapters import Adapter
from urae.execution import MemoryPlan, context_group, plan_memory, plan_speed
from urae.execution.context import context_parallel as tokens_shared
from urae.execution.rounding import stored_as
from urae.execution.speed import Compile, Speed, cache_of, speed_text
from urae.families import family_of, model_name
from urae.generation.direct import Direct
from urae.generation.methods import Method, method_named, options_of
from urae.generation.native import (
    Native,
    Natives,
    TwoPass,
    check_shape,
    native_pass,
    native_picture_size,
    picture_hash,
)
from urae.generation.provenance import Provenance, versions
from urae.generation.request import Request
from urae.resolution import (
    ResolutionPolicy,
    active_policy,
    check_size,
    size_scale,
    warn_dynamic_shift,
    without_policy,
)

__all__ = ["DEFAULT_GUIDANCE", "Picture", "generate", "policy_for"]

DEFAULT_GUIDANCE = Direct.guidance

Picture = Image.Image | str | Path
"""A picture, or the file that holds one."""

logger = logging.getLogger(__name__)


def generate(
    pipe: Any,
    prompt: str | Sequence[str],
    *,
    size: int | Sequence[int],
    method: str | Method = "direct",
    adapter: Adapter | None = None,
    policy: ResolutionPolicy | Literal["auto", "none"] = "auto",
    seed: int | Sequence[int] = 0,
    steps: int | Literal["auto"] = "auto",
    guidance: float | Literal["auto"] = "auto",
    native: Picture | Sequence[Picture] | None = None,
    natives: str | Path | None = None,
    memory: MemoryPlan | Literal["auto"] = "auto",
    speed: Speed = "exact",
    compile: Compile = "auto",
    context_parallel: int = 1,
    choose: Callable[[Sequence[Provenance]], Sequence[int]] = lambda planned: range(len(planned)),
    on_step: Callable[[], None] = lambda: None,
    on_native: Callable[[Image.Image], None] = lambda image: None,
    on_image: Callable[[Image.Image], None] = lambda image: None,
) -> Image.Image | list[Image.Image]:
    """Make an image of every prompt with every seed, with a stock FluxPipeline.

    `size` is (width, height) in pixels, multiples of 16. `method` is a name of `METHODS` or a method with options,
    such as `Imax(weight=0.5)`. `policy`, `adapter`, `steps` and `guidance` are those of the pass at this size;
    "auto" steps and guidance are the method's own (direct: 28 and 3.5). `policy` "auto" is the adapter's own, else
    the one that is on already, else `ResolutionPolicy.for_size` above the native size; "none" is stock behaviour.

    A two-pass method starts from a picture at native size: `native`, one picture or file for all images or one for
    each (not for a method that also follows how the picture came about), else it is made without the adapter, and
    with the folder `natives` kept there and taken from there the next time. `memory` "auto" is `plan_memory`.

    `speed` "exact" leaves nothing out; "fast" leaves most of the transformer's work in the pass at this size to a
    cache, as does a cache of your own such as `TaylorSeer(interval=3)`. `compile` says whether the transformer's blocks
    are compiled, "auto" where `plan_speed` expects that to pay; native pictures are drawn exactly, uncompiled.

    Under `torchrun`, `context_parallel` neighbouring processes draw each image together, sharing its tokens; native
    pictures each draws by itself. `choose` is told what is to be made, before anything is (where a native picture is
    still to be drawn, without its hash), and returns the places in the list of those that are to be drawn here.
    `on_step` is called after each denoising step of both passes (those of a picture taken from the folder count at
    once), `on_native` with each native picture, `on_image` with each finished image.

    Returns one image for a prompt and a seed, else a list, all seeds of the first prompt first, of those chosen. Raises
    ValueError for a size, method or setting that the model cannot follow, before anything is computed.
    """
    size = check_size(size)
    method = method_named(method, {}) if isinstance(method, str) else method
    if guidance != "auto":
        _check_guidance(pipe, guidance)
    if method.steps == 0:
        shared = context_parallel if context_parallel > 1 else None
        whole = {"speed": speed if speed != "exact" else None, "compile": compile or None}
        _check_not_denoising(
            method,
            adapter=adapter,
            policy=policy,
            steps=steps,
            guidance=guidance,
            context_parallel=shared,
            **whole,
        )
    elif steps != "auto" and steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    chosen = method.policy(policy_for(pipe, size, adapter=adapter, policy=policy))
    plan = plan_memory(pipe, size) if memory == "auto" else memory
    num_steps = method.steps if steps == "auto" else steps
    requests = [
        Request(
            prompt=text,
            size=size,
            seed=number,
            steps=num_steps,
            guidance=method.guidance if guidance == "auto" else guidance,
        )
        for text in _several("prompt", prompt)
        for number in _several("seed", seed)
    ]
    if isinstance(method, TwoPass):
        method.check(pipe, size)
        if native is not None:
            passes = _given(method, native, requests, natives)
            requests = [_with(request, one) for request, one in zip(requests, passes, strict=True)]
    elif native is not None or natives is not None:
        raise ValueError(f"a native picture has no effect with the {method.name} method: leave it out")
    group = context_group(context_parallel)
    made_from = partial(
        _provenance,
        pipe,
        method=method,
        adapter=adapter,
        policy=chosen,
        plan=plan,
        speed=speed_text(cache_of(speed)),
    )
    requests = [requests[place] for place in choose([made_from(request) for request in requests])]
    fast = plan_speed(
        pipe,
        size,
        speed,
        steps=num_steps,
        num_images=len(requests),
        compile=compile,
        context_parallel=context_parallel,
        memory=plan,
    )
    if isinstance(method, TwoPass) and native is None and requests:
        passes = _made(pipe, method, requests, natives, memory, on_step, on_native)
        requests = [_with(request, one) for request, one in zip(requests, passes, strict=True)]
    logger.info("memory: %s", plan)
    logger.info("speed: %s", fast)
    images = []
    with _prepared(pipe, adapter, chosen, group, plan), fast.on(pipe, size) as kernels:
        if chosen is None and method.steps and requests:
            warn_dynamic_shift(pipe, size, steps=num_steps)
        for request in requests:
            with fast.drawing(pipe, on_step) as step_done:
                image = method.draw(pipe, request, on_step=step_done)
            image.info.update(made_from(request).to_info() | kernels)
            on_image(image)
            images.append(image)
    return images if _is_list(prompt) or _is_list(seed) else images[0]


def _with(request: Request, native: Native) -> Request:
    return replace(request, native=native.picture, native_path=native.path)


def policy_for(
    pipe: Any,
    size: int | Sequence[int],
    *,
    adapter: Adapter | None = None,
    policy: ResolutionPolicy | Literal["auto", "none"] = "auto",
) -> ResolutionPolicy | None:
    """The policy that `generate` uses with the direct method; None stands for stock behaviour.

    Other methods may change its timestep shift (`method.policy`).
    """
    if isinstance(policy, ResolutionPolicy):
        return policy
    _check_choice("policy", policy, ("auto", "none"))
    if policy == "none":
        return None
    if adapter is not None and adapter.policy is not None:
        return adapter.policy
    if active_policy(pipe) is not None or size_scale(pipe, size) <= 1:
        return active_policy(pipe)
    return ResolutionPolicy.for_size(pipe, size)


def _given(
    method: TwoPass,
    native: Picture | Sequence[Picture],
    requests: Sequence[Request],
    natives: str | Path | None,
) -> list[Native]:
    """The native pictures that the user has, one for each request."""
    if method.needs_path:
        raise ValueError(
            f"{method.name} follows the native pass step by step, which a given picture does not tell: leave native "
            "out, or set the method's reference to 'picture'"
        )
    if natives is not None:
        raise ValueError("natives has no effect where the native pictures are given: leave one out")
    pictures = _several("native", native) * (1 if _is_list(native) else len(requests))
    if len(pictures) != len(requests):
        raise ValueError(
            f"there are {len(pictures)} native pictures for {len(requests)} images: "
            "give one for each, all seeds of the first prompt first, or one for all"
        )
    opened = [one if isinstance(one, Image.Image) else Image.open(one) for one in pictures]
    return [
        Native(picture=check_shape(one, request.size)) for one, request in zip(opened, requests, strict=True)
    ]


def _made(
    pipe: Any,
    method: TwoPass,
    requests: Sequence[Request],
    natives: str | Path | None,
    memory: MemoryPlan | Literal["auto"],
    on_step: Callable[[], None],
    on_native: Callable[[Image.Image], None],
) -> list[Native]:
    """A native pass for each request, from the folder or made now."""
    size = native_picture_size(pipe, requests[0].size)
    # What decodes in tiles or strips at the large size fits as a whole at the native one.
    plan = replace(plan_memory(pipe, size) if memory == "auto" else memory, decode="whole")
    kept = None if natives is None else Natives.of(pipe, natives)
    make = partial(generate, pipe, memory=replace(plan, offload="unchanged"), compile=False, on_step=on_step)
    passes = []
    with plan.on(pipe):
        for request in requests:
            settings = method.native_settings(request, size)
            one = kept.find(settings, with_path=method.needs_path) if kept else None
            if one:
                for _ in range(method.native_steps):
                    on_step()
            else:
                one = native_pass(make, settings, with_path=method.needs_path)
                if kept:
                    kept.keep(settings, one)
            on_native(one.picture)
            passes.append(one)
    return passes


@contextmanager
def _prepared(
    pipe: Any, adapter: Adapter | None, policy: ResolutionPolicy | None, group: Any, plan: MemoryPlan
) -> Iterator[None]:
    with ExitStack() as stack:
        # The adapter comes before the plan: weights that are offloaded layer by layer cannot be recognised.
        if adapter is not None:
            stack.enter_context(adapter.on(pipe, policy=None))
        stack.enter_context(without_policy(pipe) if policy is None else policy.on(pipe))
        if group:
            stack.enter_context(tokens_shared(pipe.transformer, group))
        stack.enter_context(plan.on(pipe))
        yield


def _provenance(
    pipe: Any,
    request: Request,
    *,
    method: Method,
    adapter: Adapter | None,
    policy: ResolutionPolicy | None,
    plan: MemoryPlan,
    speed: str,
) -> Provenance:
    return Provenance(
        prompt=request.prompt,
        seed=request.seed,
        size=request.size,
        steps=request.steps,
        guidance=request.guidance if family_of(pipe).guidance.kind(pipe) != "none" else None,
        method=method.name,
        options=options_of(method),
        native=picture_hash(request.native) if request.native else "",
        policy=policy,
        adapter_hash=adapter.hash if adapter else "",
        adapter_file="",
        model=model_name(pipe),
        base_weights=stored_as(pipe),
        memory=str(plan),
        speed=speed,
        versions=versions(),
    )


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def _several(name: str, values: Any) -> list[Any]:
    several = list(values) if _is_list(values) else [values]
    if not several:
        raise ValueError(f"{name} is an empty list: expected at least one")
    return several


def _check_choice(name: str, choice: Any, valid: Any) -> None:
    if choice not in valid:
        raise ValueError(f"{name} is {choice!r}: expected one of {', '.join(valid)}")


def _check_not_denoising(method: Method, **settings: Any) -> None:
    """A method without a denoising pass at the target size leaves nothing to the settings of that pass."""
    for name, value in settings.items():
        if value is not None and value != "auto":
            raise ValueError(
                f"{name} has no effect with the {method.name} method, which does not denoise at the target size: "
                "leave it out"
            )


def _check_guidance(pipe: Any, guidance: float) -> None:
    if guidance != DEFAULT_GUIDANCE and family_of(pipe).guidance.kind(pipe) == "none":
        raise ValueError(
            f"guidance is {guidance}, but this model takes no guidance scale: leave guidance out"
        )
