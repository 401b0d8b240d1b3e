"""One drawing in two ways: a workflow for ComfyUI, and the same checkpoint, prompt and noise under `urae`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from urae.families import Drawing, family_of
from urae.generation.sdedit import nominal_strength

SIZE = (256, 192)
SEED, STEPS, GUIDANCE = 5, 4, 3.5
SHIFT, SCALE = 0.1159, 0.3611
"""Of FLUX.1's latents, which are Z-Image's too."""
TEXT = {"flux2": 512, "z_image": 7, "qwen_image": 7}
"""Tokens of the prompts; ComfyUI pads FLUX.2's to 512. FLUX.1's has 7."""
START = 0.875
"""Noise level at which passes from a picture begin."""


def prompt_of(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    prompt = {"prompt_embeds": torch.randn(1, TEXT.get(name, 7), 64, generator=generator)}
    return prompt | ({"pooled": torch.randn(1, 32, generator=generator)} if name == "flux" else {})


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def workflow(*patches, model="flux", size=SIZE, steps=STEPS, save="sampled") -> dict[str, Any]:
    """Model -> the patching nodes, each (class, inputs) -> KSampler -> SaveLatent."""
    nodes = {
        "model": node("ProbeModel", name=model),
        "prompt": node("ProbeConditioning", file=f"{model}-prompt.safetensors", guidance=GUIDANCE),
        "empty": empty(model, size),
    }
    model = ["model", 0]
    for index, (kind, inputs) in enumerate(patches):
        nodes[f"patch{index}"] = node(kind, model=model, **inputs)
        model = [f"patch{index}", 0]
    nodes["sampler"] = node(
        "KSampler", model=model, seed=SEED, steps=steps, cfg=1.0, sampler_name="euler", scheduler="simple",
        positive=["prompt", 0], negative=["prompt", 0], latent_image=["empty", 0], denoise=1.0,
    )  # fmt: skip
    nodes[save] = node("SaveLatent", samples=["sampler", 0], filename_prefix="latent")
    return nodes


def empty(model: str, size: tuple[int, int]) -> dict[str, Any]:
    kind = "EmptyFlux2LatentImage" if model == "flux2" else "EmptySD3LatentImage"
    return node(kind, width=size[0], height=size[1], batch_size=1)


def guided_workflow(policy: str, *, model: str, target: dict[str, Any]) -> dict[str, Any]:
    """A native pass at half the size, then SDEdit, I-Max and HiFlow at `target`'s; what starts and guides them too."""
    passes = {"vae": ["vae", 0], "native": ["sampler", 0], "target": ["target", 0], "steps": STEPS}
    inputs = {
        "UraeImax": {"schedule": "cosine_decay", "weight": 0.8, "low_pass_level": 1, "shift": 6.0},
        "UraeSdedit": {"start_sigma": START},
        "UraeHiflow": {"start_sigma": START, "direction": 0.8, "acceleration": 0.4, "cutoff": 0.3, "sharpen": 0.5},
    }  # fmt: skip
    nodes = workflow(
        ("UraePolicyJson", {"policy": policy}), model=model, size=(SIZE[0] // 2, SIZE[1] // 2), save="native"
    )
    nodes |= {
        "vae": node("ProbeVae", model=model),
        "target": target,
        "euler": node("KSamplerSelect", sampler_name="euler"),
    }
    for kind, given in inputs.items():
        given_model = 0 if kind == "UraeSdedit" else 1  # which gives no model
        nodes[kind] = node(kind, model=["patch0", 0], **passes, **given)
        nodes[f"{kind} start"] = node("SaveLatent", samples=[kind, given_model + 1], filename_prefix="start")
        nodes[f"{kind} sampler"] = node(
            "SamplerCustom", model=[kind if given_model else "patch0", 0], sampler=["euler", 0],
            sigmas=[kind, given_model], latent_image=[kind, given_model + 1], add_noise=True, noise_seed=SEED, cfg=1.0,
            positive=["prompt", 0], negative=["prompt", 0],
        )  # fmt: skip
        nodes[f"{kind} end"] = node("SaveLatent", samples=[f"{kind} sampler", 0], filename_prefix="end")
    return nodes


def as_the_model_has(pipe: Any, name: str, saved: Tensor) -> Tensor:
    """Latents as SaveLatent has them, in the model's own units and the shape of `urae`."""
    if name == "flux2":
        return F.pixel_shuffle(saved, 2)
    if name in ("flux", "z_image"):
        return (saved - SHIFT) * SCALE
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1)
        for values in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    return (saved.squeeze(2) - mean) / std


def ours(pipe: Any, name: str, size=SIZE, steps=STEPS, *, start: Tensor | None = None, shift=3.0) -> Tensor:
    """Latents of the same noise in the model's own units, from `start` at the noise level START if it is given;
    `shift` is what the pipeline then runs under."""
    family, (width, height) = family_of(pipe), (size[0] // 8, size[1] // 8)
    shape = (1, 128, height // 2, width // 2) if name == "flux2" else (1, 16, height, width)
    noise = torch.randn(shape, generator=torch.manual_seed(SEED))
    noise = F.pixel_shuffle(noise, 2) if name == "flux2" else noise
    more = {}
    if start is not None:
        noise = (1 - START) * start + START * noise
        strength = nominal_strength(START, shift=shift)
        more["sigmas"] = np.linspace(strength, strength / steps, steps)
    prompt = prompt_of(name)
    if name == "flux":
        prompt = {"prompt_embeds": prompt["prompt_embeds"], "pooled_prompt_embeds": prompt["pooled"]}
    elif name != "flux2":
        prompt["prompt_embeds_mask"] = torch.ones(1, TEXT[name], dtype=torch.bool)
    drawing = Drawing(
        prompt=prompt,
        negative="",
        size=size,
        guidance=GUIDANCE if name.startswith("flux") else 1.0,
        steps=steps,
        settings={"output_type": "latent"},
    )
    done = family.pipelines.draw(pipe, drawing, latents=family.latents.pack(noise), **more)
    return family.latents.unpack(done if done.ndim == 3 else done[None], height, width)
