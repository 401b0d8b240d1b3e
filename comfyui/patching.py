"""A policy on a MODEL: three patches of a clone, which ComfyUI takes off again when the clone is unloaded.

- the embedder inside `diffusion_model` makes the tables;
- `model_sampling` makes the timestep shift static;
- a wrapper around `apply_model` tells the tables the size of the latents, from which everything else follows. It stands
  outside of what TorchCompileModel compiles, so it breaks no graph.

`model` itself stays as it was. What the patches cannot be right about is refused, in one sentence.
"""

from __future__ import annotations

import inspect
import logging
import math
from typing import Any

import comfy.ldm.flux.layers
import comfy.lora
import comfy.lora_convert
import comfy.model_base
import comfy.model_sampling
import torch
from comfy.patcher_extension import WrappersMP

from .models import FAMILIES, Call, Family
from .policy import ByHand, Policy
from .tables import PolicyEmbedND

__all__ = ["apply_adapter", "apply_policy", "apply_shift", "family_of", "shift_of"]

logger = logging.getLogger(__name__)

KEY = "urae"
SUFFIXES = (
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_down.weight",
    ".lora_up.weight",
    ".alpha",
    ".diff",
    ".diff_b",
)


def apply_policy(model: Any, policy: Policy | ByHand) -> Any:
    """A clone of `model` that runs under the policy; one that it ran under before is replaced."""
    family = family_of(model)
    embedder = PolicyEmbedND(family, policy, _stock_embedder(model, family))
    patched = apply_shift(model, policy.shift or family.shift)
    patched.add_object_patch(_place(family), embedder)
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _Telling(embedder))
    return patched


def apply_shift(model: Any, shift: float) -> Any:
    """A clone of `model` under a static timestep shift, sigma -> a sigma / (1 + (a - 1) sigma)."""
    family_of(model)

    class Static(comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.CONST):
        pass

    sampling = Static(model.model.model_config)
    sampling.set_parameters(shift=math.log(shift))  # what ComfyUI calls the shift of FLUX is mu
    patched = model.clone()
    patched.add_object_patch("model_sampling", sampling)
    return patched


def apply_adapter(model: Any, tensors: dict[str, Any], strength: float, *, name: str) -> Any:
    """A clone of `model` with an adapter's weights, all of them or none: ComfyUI leaves strange keys out."""
    family_of(model)
    places = comfy.lora.model_lora_keys_unet(model.model, {})
    tensors = {
        _renamed(key, places): tensor for key, tensor in comfy.lora_convert.convert_lora(tensors).items()
    }
    strange = [key for key in tensors if _module(key) not in places]
    if strange:
        raise ValueError(
            f"{name} adapts {strange[0]!r}, which this model has not or ComfyUI does not read under this name: convert "
            "it by `urae adapter convert FILE NEW --to comfy`, and take the model that it was made for"
        )
    patches = comfy.lora.load_lora(tensors, places)
    patched = model.clone()
    if missing := set(patches) - set(patched.add_patches(patches, strength)):
        raise ValueError(f"{name} does not fit this model: it has no {min(map(str, missing))}")
    return patched


def family_of(model: Any) -> Family:
    """The model's family. `ValueError` for a model of none that the nodes know."""
    inside = model.model
    config = getattr(inside.model_config, "unet_config", {})
    for family in FAMILIES:
        is_kind = type(inside) is getattr(comfy.model_base, family.kind, None)
        if is_kind and all((config.get(name) or None) == value for name, value in family.config.items()):
            return family
    raise ValueError(
        f"the URAE nodes know {', '.join(family.name for family in FAMILIES)}; this model is {type(inside).__name__}"
    )


def shift_of(model: Any) -> float:
    """The timestep shift a that the model runs under: 3.16 for FLUX.1-dev as it comes, 7.5 for FLUX.2."""
    family_of(model)
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, comfy.model_sampling.ModelSamplingFlux):
        return math.exp(sampling.shift)
    if isinstance(sampling, comfy.model_sampling.ModelSamplingDiscreteFlow):
        return float(sampling.shift)
    raise ValueError(f"{type(sampling).__name__} has no timestep shift: put the node URAE policy behind it")


class _Telling:
    """Around `apply_model`: tells the embedder what the call is about, and forgets it afterwards."""

    def __init__(self, embedder: PolicyEmbedND) -> None:
        self.embedder = embedder
        self.warned = False

    def __call__(self, executor: Any, x: Any, t: Any, *inputs: Any, **named: Any) -> Any:
        bound = inspect.signature(type(executor.class_obj)._apply_model).bind(None, x, t, *inputs, **named)
        arguments = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        self._check(arguments)
        self._check_embedder(executor.class_obj.diffusion_model)
        self.embedder.call, self.embedder.sigma = self._call(executor.class_obj, arguments), t[0].float()
        try:
            self._check_sigma(t)
            self._warn(self.embedder.call)
            return executor(x, t, *inputs, **named)
        finally:
            self.embedder.call = self.embedder.sigma = None

    def _check(self, arguments: dict[str, Any]) -> None:
        options = arguments.get("transformer_options") or {}
        if options.get("rope_options"):
            raise ValueError(
                "ScaleROPE would be stacked on the resolution policy: take one of the two nodes out"
            )
        if arguments.get("ref_latents") or arguments.get("ref_contexts") or _frames(arguments["x"]) > 1:
            raise ValueError(
                "reference latents and layers under a resolution policy are not supported, since nobody has measured "
                "how their positions should scale: take them or the URAE policy out"
            )

    def _check_sigma(self, sigma: torch.Tensor) -> None:
        if self.embedder.policy.needs_sigma and bool((sigma != sigma[0]).any()):
            raise ValueError("dype needs one noise level for the whole batch: sample the images one by one")

    def _check_embedder(self, diffusion: Any) -> None:
        present = getattr(diffusion, self.embedder.family.embedder)
        if present is not self.embedder:
            raise ValueError(
                f"another node put {type(present).__name__} where the resolution policy makes the positions: put the "
                "node URAE policy behind it, or take one of the two out"
            )

    def _warn(self, call: Call) -> None:
        expected = self.embedder.policy.native_tokens - self.embedder.family.native_grid**2
        is_short = self.embedder.family.pads_prompts and call.text < expected
        if self.embedder.policy.proportional and is_short and not self.warned:
            self.warned = True
            logger.warning(
                "URAE: the prompt has %d text tokens, where the policy counts %d; for the very numbers of training put "
                "T5TokenizerOptions with min_length %d behind the CLIP loader",
                call.text,
                expected,
                expected,
            )

    def _call(self, model: Any, arguments: dict[str, Any]) -> Call:
        token = self.embedder.family.token
        rows, columns = (-(-side // token) for side in arguments["x"].shape[-2:])
        dtype = model.manual_cast_dtype or model.get_dtype()
        return Call(text=arguments["c_crossattn"].shape[1], rows=rows, columns=columns, dtype=dtype)


def _frames(latents: torch.Tensor) -> int:
    return latents.shape[2] if latents.ndim == 5 else 1


def _place(family: Family) -> str:
    return f"diffusion_model.{family.embedder}"


def _stock_embedder(model: Any, family: Family) -> Any:
    """The embedder that the model came with; `ValueError` for one that another node has changed."""
    present = model.get_model_object(_place(family))
    stock = present.stock if isinstance(present, PolicyEmbedND) else present
    if type(stock) is not comfy.ldm.flux.layers.EmbedND:
        raise ValueError(
            f"another node put {type(stock).__name__} where the resolution policy makes the positions: take one out"
        )
    if stock.theta != family.theta or tuple(stock.axes_dim) != family.axes:
        raise ValueError(
            f"another node changed the model's positions (theta {stock.theta:g}, where the model has "
            f"{family.theta:g}): take it out, or the URAE policy"
        )
    return stock


def _renamed(key: str, places: dict[str, Any]) -> str:
    """The key under the name that this version knows: FLUX's norms had a `scale`, as in the original repository, and
    have a `weight` in newer ones. Files hold one spelling or both."""
    module = _module(key)
    spellings = (module, module.removesuffix(".scale"), f"{module}.scale")
    return next((one for one in spellings if one in places), module) + key[len(module) :]


def _module(key: str) -> str:
    return next((key.removesuffix(suffix) for suffix in SUFFIXES if key.endswith(suffix)), key)
