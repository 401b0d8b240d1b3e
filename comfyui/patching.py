"""A policy on a MODEL: three patches of a clone, which ComfyUI takes off again when the clone is unloaded.

- `diffusion_model.pe_embedder` makes the tables;
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
import comfy.ldm.flux.model
import comfy.lora
import comfy.lora_convert
import comfy.model_base
import comfy.model_sampling
import torch
from comfy.patcher_extension import WrappersMP

from .policy import NATIVE_GRID, ByHand, Policy
from .tables import Call, PolicyEmbedND

__all__ = ["apply_adapter", "apply_policy", "apply_shift", "check_flux", "shift_of"]

logger = logging.getLogger(__name__)

KEY = "urae"
EMBEDDER = "diffusion_model.pe_embedder"
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
    check_flux(model)
    patched = apply_shift(model, policy.shift)
    stock = _stock_embedder(model)
    embedder = PolicyEmbedND(stock.theta, stock.axes_dim, policy, stock)
    patched.add_object_patch(EMBEDDER, embedder)
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _Telling(embedder))
    return patched


def apply_shift(model: Any, shift: float) -> Any:
    """A clone of `model` under a static timestep shift, sigma -> a sigma / (1 + (a - 1) sigma)."""
    check_flux(model)

    class Static(comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.CONST):
        pass

    sampling = Static(model.model.model_config)
    sampling.set_parameters(shift=math.log(shift))  # what ComfyUI calls the shift of FLUX is mu
    patched = model.clone()
    patched.add_object_patch("model_sampling", sampling)
    return patched


def apply_adapter(model: Any, tensors: dict[str, Any], strength: float, *, name: str) -> Any:
    """A clone of `model` with an adapter's weights, all of them or none: ComfyUI leaves strange keys out."""
    check_flux(model)
    places = comfy.lora.model_lora_keys_unet(model.model, {})
    tensors = comfy.lora_convert.convert_lora(tensors)
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


def check_flux(model: Any) -> None:
    """Raise ValueError for every model but FLUX.1."""
    inside, axes = model.model, getattr(getattr(model.model, "diffusion_model", None), "params", None)
    if type(inside) is not comfy.model_base.Flux or len(axes.axes_dim) != 3:
        raise ValueError(f"the URAE nodes know FLUX.1; this model is {type(inside).__name__}")


def shift_of(model: Any) -> float:
    """The timestep shift a that the model runs under: 3.16 for FLUX.1-dev as it comes."""
    check_flux(model)
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
        self.embedder.call, self.embedder.sigma = _call(arguments), t[0].float()
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
        if arguments.get("ref_latents"):
            raise ValueError(
                "reference latents under a resolution policy are not supported, since nobody has measured how their "
                "positions should scale: take the reference or the URAE policy out"
            )

    def _check_sigma(self, sigma: torch.Tensor) -> None:
        if self.embedder.policy.needs_sigma and bool((sigma != sigma[0]).any()):
            raise ValueError("dype needs one noise level for the whole batch: sample the images one by one")

    def _check_embedder(self, diffusion: Any) -> None:
        present = diffusion.pe_embedder
        if present is not self.embedder:
            raise ValueError(
                f"another node put {type(present).__name__} where the resolution policy makes the positions: put the "
                "node URAE policy behind it, or take one of the two out"
            )

    def _warn(self, call: Call) -> None:
        expected = self.embedder.policy.native_tokens - NATIVE_GRID**2
        if self.embedder.policy.proportional and call.text < expected and not self.warned:
            self.warned = True
            logger.warning(
                "URAE: the prompt has %d text tokens, where the policy counts %d; for the very numbers of training put "
                "T5TokenizerOptions with min_length %d behind the CLIP loader",
                call.text,
                expected,
                expected,
            )


def _call(arguments: dict[str, Any]) -> Call:
    rows, columns = ((side + 1) // 2 for side in arguments["x"].shape[-2:])
    return Call(text=arguments["c_crossattn"].shape[1], rows=rows, columns=columns)


def _stock_embedder(model: Any) -> Any:
    """The embedder that the model came with; `ValueError` for one that another node has changed."""
    present = model.get_model_object(EMBEDDER)
    stock = present.stock if isinstance(present, PolicyEmbedND) else present
    params = model.model.diffusion_model.params
    if type(stock) is not comfy.ldm.flux.layers.EmbedND:
        raise ValueError(
            f"another node put {type(stock).__name__} where the resolution policy makes the positions: take one out"
        )
    if stock.theta != params.theta or list(stock.axes_dim) != list(params.axes_dim):
        raise ValueError(
            f"another node changed the model's positions (theta {stock.theta:g}, where the model has "
            f"{params.theta:g}): take it out, or the URAE policy"
        )
    return stock


def _module(key: str) -> str:
    return next((key.removesuffix(suffix) for suffix in SUFFIXES if key.endswith(suffix)), key)
