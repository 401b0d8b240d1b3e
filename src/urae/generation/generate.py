"""Images from prompts: the one entry point for every method, with or without an adapter.

Each image is made by itself, from its own generator on the CPU, so that it depends on its prompt and seed
alone and not on what else was asked for. Whatever decides its pixels is written into `image.info`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, Protocol

from PIL import Image

from urae.adapters import Adapter
from urae.generation.direct import direct
from urae.generation.memory import MemoryPlan, plan_memory
from urae.generation.open import model_name
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

__all__ = ["DEFAULT_GUIDANCE", "METHODS", "Method", "generate", "policy_for"]

DEFAULT_GUIDANCE = 3.5

logger = logging.getLogger(__name__)


class Method(Protocol):
    """How one image is made with a pipeline whose adapter, policy and memory plan are in place."""

    def __call__(self, pipe: Any, request: Request, *, on_step: Callable[[], None]) -> Image.Image: ...


METHODS: Mapping[str, Method] = {"direct": direct}


def generate(
    pipe: Any,
    prompt: str | Sequence[str],
    *,
    size: int | Sequence[int],
    method: str = "direct",
    adapter: Adapter | None = None,
    policy: ResolutionPolicy | Literal["auto", "none"] = "auto",
    seed: int | Sequence[int] = 0,
    steps: int = 28,
    guidance: float = DEFAULT_GUIDANCE,
    memory: MemoryPlan | Literal["auto"] = "auto",
    on_step: Callable[[], None] = lambda: None,
    on_image: Callable[[Image.Image], None] = lambda image: None,
) -> Image.Image | list[Image.Image]:
    """Make an image of every prompt with every seed, with a stock FluxPipeline.

    `size` is (width, height) in pixels, multiples of 16. `policy` "auto" is the adapter's own, else the one
    that is on already, else `ResolutionPolicy.for_size` above the native size; "none" is stock behaviour.
    `memory` "auto" is `plan_memory`. `on_step` is called after each denoising step, `on_image` with each
    finished image.

    Returns one image for a prompt and a seed, else a list, all seeds of the first prompt first. Raises
    ValueError for a size, method or setting that the model cannot follow, before anything is computed.
    """
    size = check_size(size)
    _check_choice("method", method, METHODS)
    _check_guidance(pipe, guidance)
    chosen = policy_for(pipe, size, adapter=adapter, policy=policy)
    plan = plan_memory(pipe, size) if memory == "auto" else memory
    requests = [
        Request(prompt=text, size=size, seed=number, steps=steps, guidance=guidance)
        for text in _several("prompt", prompt)
        for number in _several("seed", seed)
    ]
    logger.info("memory: %s", plan)
    images = []
    with _prepared(pipe, adapter, chosen, plan):
        if chosen is None:
            warn_dynamic_shift(pipe, size, steps=steps)
        for request in requests:
            image = METHODS[method](pipe, request, on_step=on_step)
            image.info.update(_provenance(pipe, request, method, adapter, chosen, plan).to_info())
            on_image(image)
            images.append(image)
    return images if _is_list(prompt) or _is_list(seed) else images[0]


def policy_for(
    pipe: Any,
    size: int | Sequence[int],
    *,
    adapter: Adapter | None = None,
    policy: ResolutionPolicy | Literal["auto", "none"] = "auto",
) -> ResolutionPolicy | None:
    """The policy that `generate` uses; None stands for stock behaviour."""
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


@contextmanager
def _prepared(
    pipe: Any, adapter: Adapter | None, policy: ResolutionPolicy | None, plan: MemoryPlan
) -> Iterator[None]:
    with ExitStack() as stack:
        # The adapter comes before the plan: weights that are offloaded layer by layer cannot be recognised.
        if adapter is not None:
            stack.enter_context(adapter.on(pipe, policy=None))
        stack.enter_context(without_policy(pipe) if policy is None else policy.on(pipe))
        stack.enter_context(plan.on(pipe))
        yield


def _provenance(
    pipe: Any,
    request: Request,
    method: str,
    adapter: Adapter | None,
    policy: ResolutionPolicy | None,
    plan: MemoryPlan,
) -> Provenance:
    return Provenance(
        prompt=request.prompt,
        seed=request.seed,
        size=request.size,
        steps=request.steps,
        guidance=request.guidance if pipe.transformer.config.guidance_embeds else None,
        method=method,
        policy=policy,
        adapter_hash=adapter.hash if adapter else "",
        adapter_file="",
        model=model_name(pipe),
        memory=str(plan),
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


def _check_guidance(pipe: Any, guidance: float) -> None:
    if guidance != DEFAULT_GUIDANCE and not pipe.transformer.config.guidance_embeds:
        raise ValueError(
            f"guidance is {guidance}, but this model takes no guidance scale: leave guidance out"
        )
