"""The paper's settings by name.

Each function returns a `Recipe` and takes changes by keyword: `flux_2k(data="my/images", seed=1)`. Keys of
nested settings are dotted, `flux_2k(**{"adapter.rank": 8})`, as on the command line. Defaults are the
paper's, 2,000 steps of batch 8 (Sec. 3.1) and guidance 1 in training (Sec. 2.4), and where it is silent its published
code's: rank 16, Prodigy at lr 1, the original caption with probability 0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from urae.adapters import IMAGE_STREAM, Lora, Minor
from urae.training import Recipe, override

__all__ = [
    "RECIPES",
    "flux2_klein_2k",
    "flux2_klein_4k",
    "flux_2k",
    "flux_2k_subject",
    "flux_4k",
    "flux_4k_synthetic",
    "mini_2x",
    "mini_2x_subject",
    "mini_4x",
    "qwen_image_4k",
    "schnell_2k",
    "training_at_4k",
    "z_image_2k",
    "z_image_4k",
]

PHOTOGRAPHS = (
    "a lighthouse on a cliff in a storm, waves breaking against the rocks, oil painting",
    "portrait of an old fisherman with a white beard, every pore visible, natural light",
    "a street market in the rain at night, neon signs with legible text, reflections",
    "macro photograph of a dragonfly on a blade of grass, morning dew",
)
"""What the sample images of the large models show."""

SCENES = (
    "a glossy umbrella on a wood background",
    "a flat tiger on a sky background",
    "a flat castle on a grass background",
    "a glossy apple on a brick background",
)
"""What the sample images of the miniature show."""


def flux_2k(**changes: Any) -> Recipe:
    """FLUX.1-dev at 2048 px: a LoRA on 3,000 images of a strong teacher (paper, Sec. 3.1; rank, optimizer and caption
    shares are its published code's)."""
    recipe = Recipe(
        model="black-forest-labs/FLUX.1-dev",
        size=2048,
        adapter=Lora(rank=16),
        data="data/2k",
        out="out/flux_2k",
        num_validation=8,
        validate_every=200,
        sample_every=500,
        sample_prompts=PHOTOGRAPHS,
    )
    return override(recipe, changes)


def flux_4k(**changes: Any) -> Recipe:
    """FLUX.1-dev at 4096 px: the minor components on real images of at least 4K, on top of the 2K adapter
    (the published code's way; in the paper, Sec. 3.1, it is the base alone: `start=""`)."""
    recipe = replace(
        flux_2k(),
        size=4096,
        adapter=Minor(rank=16),
        start="out/flux_2k/adapter.safetensors",
        data="data/4k",
        out="out/flux_4k",
        sample_prompts=PHOTOGRAPHS[:2],
    )
    return override(recipe, changes)


def flux_4k_synthetic(**changes: Any) -> Recipe:
    """FLUX.1-dev at 4096 px on images of a 4K teacher: a LoRA, as at 2K, on top of the 2K adapter. The paper had no
    such teacher and takes real images and the minor components (`flux_4k`); `urae theory advise` says which to take."""
    recipe = replace(flux_4k(), adapter=Lora(rank=16), data="data/4k_synthetic", out="out/flux_4k_synthetic")
    return override(recipe, changes)


def training_at_4k(share: float) -> str:
    """The command that trains at 4096 px on so much synthetic data, a share in [0, 1]. A mix takes what synthetic
    images are trained with once they are most of it."""
    if share < 0.01:
        return "urae train flux_4k"
    if share > 0.99:
        return "urae train flux_4k_synthetic"
    name = "flux_4k_synthetic" if share >= 0.5 else "flux_4k"
    return f"urae train {name} data=data/4k_synthetic:{share:.2f},data/4k:{1 - share:.2f}"


def schnell_2k(**changes: Any) -> Recipe:
    """FLUX.1-schnell at 2048 px. It takes no guidance, and samples in four steps."""
    recipe = replace(
        flux_2k(), model="black-forest-labs/FLUX.1-schnell", out="out/schnell_2k", sample_steps=4
    )
    return override(recipe, changes)


def flux2_klein_2k(**changes: Any) -> Recipe:
    """FLUX.2 klein base 4B at 2048 px. Base is trained, for the distilled klein takes the same adapter and no guidance
    that could be trained at. Samples are drawn at the guidance of its own pipeline, 4, which calls the transformer
    twice a step."""
    recipe = replace(
        flux_2k(),
        model="black-forest-labs/FLUX.2-klein-base-4B",
        out="out/flux2_klein_2k",
        sample_guidance=4.0,
    )
    return override(recipe, changes)


def flux2_klein_4k(**changes: Any) -> Recipe:
    """FLUX.2 klein base 4B at 4096 px: the minor components, on top of the 2K adapter."""
    recipe = replace(
        flux_4k(),
        model="black-forest-labs/FLUX.2-klein-base-4B",
        start="out/flux2_klein_2k/adapter.safetensors",
        out="out/flux2_klein_4k",
        sample_guidance=4.0,
    )
    return override(recipe, changes)


def qwen_image_4k(**changes: Any) -> Recipe:
    """Qwen-Image at 4096 px: the minor components, on the base, whose native 1328 px are a third of it. Samples are
    drawn at the guidance of its own pipeline, 4, which calls the transformer twice a step."""
    recipe = replace(
        flux_4k(), model="Qwen/Qwen-Image", start="", out="out/qwen_image_4k", sample_guidance=4.0
    )
    return override(recipe, changes)


def z_image_2k(**changes: Any) -> Recipe:
    """Z-Image at 2048 px. The base is trained, for Turbo takes the same adapter, and flow matching would undo its
    distillation. Samples are drawn at the guidance of its own pipeline, 6 (which it calls 5)."""
    recipe = replace(flux_2k(), model="Tongyi-MAI/Z-Image", out="out/z_image_2k", sample_guidance=6.0)
    return override(recipe, changes)


def z_image_4k(**changes: Any) -> Recipe:
    """Z-Image at 4096 px: the minor components, on top of the 2K adapter."""
    recipe = replace(
        flux_4k(),
        model="Tongyi-MAI/Z-Image",
        start="out/z_image_2k/adapter.safetensors",
        out="out/z_image_4k",
        sample_guidance=6.0,
    )
    return override(recipe, changes)


def mini_2x(**changes: Any) -> Recipe:
    """The miniature at 256 px, twice its native size: a LoRA on clean scenes, in about three minutes on two
    cores. Its 192 channels leave attention alone too little to change: after 250 steps the validation loss is 0.354
    with the whole image stream and 0.399 with FLUX's targets."""
    recipe = Recipe(
        model="mini",
        size=256,
        adapter=Lora(rank=16, targets=IMAGE_STREAM),
        data="mini:clean:320",
        out="out/mini_2x",
        steps=450,
        batch_size=4,
        optimizer="adamw",
        lr=5e-3,
        betas=(0.9, 0.99),
        ema=0.98,
        sigma_shift=2.0,
        base_dtype="fp32",
        gradient_checkpointing=False,
        checkpoint_every=50,
        num_validation=4,
        validate_every=75,
        sample_every=150,
        sample_prompts=SCENES[:2],
        sample_steps=12,
    )
    return override(recipe, changes)


def mini_4x(**changes: Any) -> Recipe:
    """The miniature at 512 px, four times its native size: the minor components, on top of the 2x adapter."""
    recipe = replace(
        mini_2x(),
        size=512,
        adapter=Minor(rank=16, targets=IMAGE_STREAM),
        start="out/mini_2x/adapter.safetensors",
        data="mini:clean:160",
        out="out/mini_4x",
        steps=150,
        batch_size=2,
        sample_every=150,
        sample_prompts=SCENES[:1],
    )
    return override(recipe, changes)


def flux_2k_subject(**changes: Any) -> Recipe:
    """A subject of one's own at 2048 px, from a few pictures: a LoRA on top of the 2K adapter, which stays apart in
    the file. At 4096 px: `size=4096 start=` the 4K adapter."""
    recipe = replace(
        flux_2k(),
        adapter=Lora(rank=16),
        start="out/flux_2k/adapter.safetensors",
        data="data/subject",
        out="out/flux_2k_subject",
        trigger="ohwx",
        caption_dropout=0.1,
        steps=800,
        batch_size=2,
        num_validation=1,
        validate_every=100,
        sample_every=200,
        sample_prompts=(
            "a photo of {trigger}",
            "{trigger} on a beach at sunset",
            "an oil painting of {trigger}",
        ),
    )
    return override(recipe, changes)


def mini_2x_subject(**changes: Any) -> Recipe:
    """A subject of one's own on the miniature, at 256 px, on top of the 2x adapter."""
    recipe = replace(
        mini_2x(),
        start="mini:2x",
        data="data/subject",
        out="out/mini_2x_subject",
        trigger="zorb",
        caption_dropout=0.1,
        steps=120,
        num_validation=1,
        validate_every=40,
        sample_every=120,
        sample_prompts=("a glossy {trigger} on a wood background",),
    )
    return override(recipe, changes)


RECIPES: dict[str, Callable[..., Recipe]] = {
    "flux_2k": flux_2k,
    "flux_2k_subject": flux_2k_subject,
    "flux_4k": flux_4k,
    "flux_4k_synthetic": flux_4k_synthetic,
    "flux2_klein_2k": flux2_klein_2k,
    "flux2_klein_4k": flux2_klein_4k,
    "mini_2x": mini_2x,
    "mini_2x_subject": mini_2x_subject,
    "mini_4x": mini_4x,
    "qwen_image_4k": qwen_image_4k,
    "schnell_2k": schnell_2k,
    "z_image_2k": z_image_2k,
    "z_image_4k": z_image_4k,
}
"""Every recipe by name."""
