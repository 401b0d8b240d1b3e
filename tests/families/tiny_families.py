"""A tiny random stock pipeline of every family, for the conformance matrix.

To add a family: write a function that builds its pipeline, list it in `TINY` with what the tests are to expect, and
copy its golden values beside the others. Heads, axes and theta are those of the published models, the rest is as small
as it goes: native 64 px, 16 px a token, text of 8 tokens, one a letter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from safetensors.torch import load_file
from tiny_flux2 import dev, klein
from tiny_krea2 import krea2
from tiny_qwen_image import qwen_image
from tiny_z_image import z_image
from torch import Tensor

from tiny import t5_encoder, t5_tokenizer, with_text_encoders
from urae.families import Drawing, family_of
from urae.families.family import Family, RotaryCall

GOLDEN = Path(__file__).parents[1] / "golden" / "families"

NATIVE = (64, 64)
LARGE = (128, 96)
"""Sizes in pixels, (width, height)."""


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A family as the matrix sees it."""

    name: str
    """Of the family."""
    build: Callable[[], Any]
    golden: str
    """Name of its golden values."""
    axes: tuple[tuple[int, int, str], ...]
    """Channels, theta and role of each axis, as in the published models."""
    guiding: str
    num_targets: Mapping[str, int]
    """Layers that each word for targets means in the tiny transformer."""
    published: Mapping[str, Mapping[str, int]]
    """The same in published models, by hub id."""
    layouts: tuple[str, ...] = ("kohya", "comfy")
    """Other tools' layouts that an adapter can be written in."""
    caches: tuple[str, ...] = ("taylorseer", "first-block")
    """Caches that diffusers has for the model."""
    repeats_text: bool = True
    rescales_guidance: bool = False
    """Whether its pipeline gives what is guided the length of what is not."""
    unread: tuple[str, ...] = ()
    """Ends of the names of layers whose output nobody reads."""
    guided_at_once: bool = False
    """Whether both prompts of a guided step are in one call of the transformer."""

    @cached_property
    def pipe(self) -> Any:
        """The same for all tests, each of which leaves it as it was."""
        pipe = self.build()
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def transformer(self) -> Any:
        return self.pipe.transformer

    @property
    def family(self) -> Family:
        return family_of(self.pipe)


def flux() -> FluxPipeline:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=1,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=True,
    )
    nothing = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    return with_text_encoders(
        FluxPipeline(scheduler=scheduler(), vae=vae(), transformer=transformer.eval(), **nothing)
    )


def chroma() -> ChromaPipeline:
    torch.manual_seed(0)
    transformer = ChromaTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=1,
        joint_attention_dim=32,
        approximator_hidden_dim=64,
        approximator_layers=2,
    )
    tokenizer = t5_tokenizer()
    return ChromaPipeline(
        scheduler=scheduler(),
        vae=vae(),
        transformer=transformer.eval(),
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer).eval(),
    )


def vae() -> AutoencoderKL:
    """FLUX.1's, with 16 channels of 8 x 8 pixels."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        latent_channels=16,
        norm_num_groups=2,
        sample_size=64,
        shift_factor=0.1159,
        scaling_factor=0.3611,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


FLUX_AXES = ((16, 10000, "other"), (56, 10000, "row"), (56, 10000, "column"))
FLUX2_AXES = ((32, 2000, "other"), (32, 2000, "row"), (32, 2000, "column"), (32, 2000, "other"))

TINY = (
    Tiny(
        name="FLUX.1",
        build=flux,
        golden="flux1",
        axes=FLUX_AXES,
        guiding="embedded",
        num_targets={"attention": 7, "image_stream": 11},
        published={
            "black-forest-labs/FLUX.1-dev": {"attention": 190, "image_stream": 304},
            "black-forest-labs/FLUX.1-schnell": {"attention": 190, "image_stream": 304},
        },
    ),
    Tiny(
        name="Chroma",
        build=chroma,
        golden="chroma",
        axes=FLUX_AXES,
        guiding="cfg",
        num_targets={"attention": 7, "image_stream": 11},
        published={"lodestones/Chroma1-HD": {"attention": 190, "image_stream": 304}},
        caches=("taylorseer",),
    ),
    Tiny(
        name="Krea 2",
        build=krea2,
        golden="krea2",
        axes=((32, 1000, "other"), (48, 1000, "row"), (48, 1000, "column")),
        guiding="cfg",
        num_targets={"attention": 10, "image_stream": 16},
        published={
            "krea/Krea-2-Raw": {"attention": 140, "image_stream": 224},
            "krea/Krea-2-Turbo": {"attention": 140, "image_stream": 224},
        },
        caches=(),
    ),
    Tiny(
        name="FLUX.2",
        build=dev,
        golden="flux2_dev",
        axes=FLUX2_AXES,
        caches=("taylorseer",),
        guiding="embedded",
        num_targets={"attention": 6, "image_stream": 8},
        published={"black-forest-labs/FLUX.2-dev": {"attention": 128, "image_stream": 144}},
    ),
    Tiny(
        name="FLUX.2",
        build=klein,
        golden="flux2_klein",
        axes=FLUX2_AXES,
        caches=("taylorseer",),
        guiding="cfg",
        num_targets={"attention": 6, "image_stream": 8},
        published={
            "black-forest-labs/FLUX.2-klein-base-4B": {"attention": 60, "image_stream": 70},
            "black-forest-labs/FLUX.2-klein-4B": {"attention": 60, "image_stream": 70},
            "black-forest-labs/FLUX.2-klein-base-9B": {"attention": 80, "image_stream": 96},
            "black-forest-labs/FLUX.2-klein-9B": {"attention": 80, "image_stream": 96},
        },
    ),
    Tiny(
        name="Qwen-Image",
        build=qwen_image,
        golden="qwen_image",
        axes=FLUX_AXES,
        guiding="cfg",
        num_targets={"attention": 8, "image_stream": 12},
        published={
            "Qwen/Qwen-Image": {"attention": 240, "image_stream": 360},
            "Qwen/Qwen-Image-2512": {"attention": 240, "image_stream": 360},
        },
        repeats_text=False,
        rescales_guidance=True,
        unread=("1.attn.to_add_out", "1.txt_mlp.net.0.proj", "1.txt_mlp.net.2"),
    ),
    Tiny(
        name="Z-Image",
        build=lambda: z_image(vae=vae()),
        golden="z_image",
        axes=((32, 256, "other"), (48, 256, "row"), (48, 256, "column")),
        guiding="cfg",
        num_targets={"attention": 8, "image_stream": 14},
        published={
            "Tongyi-MAI/Z-Image": {"attention": 128, "image_stream": 224},
            "Tongyi-MAI/Z-Image-Turbo": {"attention": 128, "image_stream": 224},
        },
        caches=(),
        repeats_text=False,
        guided_at_once=True,
    ),
)


# --- what the tests do with them -------------------------------------------------------------------------------


def noisy(tiny: Tiny, size: tuple[int, int] = LARGE, *, num: int = 1, seed: int = 2) -> Tensor:
    """Normalised latents (num, C, H, W) of a size in pixels."""
    height, width = tiny.family.latents.shape(tiny.pipe, size)
    generator = torch.Generator().manual_seed(seed)
    packed = tiny.family.latents.noise(tiny.pipe, size, None)
    channels = tiny.family.latents.unpack(packed, height, width).shape[1]
    return torch.randn(num, channels, height, width, generator=generator)


def embeddings(tiny: Tiny, *prompts: str) -> dict[str, Tensor]:
    return tiny.family.text.encode(tiny.pipe, prompts or ["a b"])


def velocity(
    tiny: Tiny,
    latents: Tensor,
    *,
    text: dict[str, Tensor] | None = None,
    sigma: float = 0.7,
    transformer: Any = None,
) -> Tensor:
    """What the transformer, or another in its place, predicts, as training calls it."""
    num = latents.shape[0]
    return tiny.family.calls.velocity(
        tiny.transformer if transformer is None else transformer,
        latents,
        sigma=torch.full((num,), sigma),
        embeddings=text or embeddings(tiny, *["a b"] * num),
        guidance=3.5 if tiny.guiding == "embedded" else None,
    )


def drawing(tiny: Tiny, **changes: Any) -> Drawing:
    """Two steps at `LARGE`."""
    settings = {
        "prompt": "a b",
        "negative": "",
        "size": LARGE,
        "guidance": 3.5,
        "steps": 2,
        "settings": {"generator": torch.Generator().manual_seed(0), "output_type": "np"},
    }
    return Drawing(**{**settings, **changes})


def drawn(tiny: Tiny, **changes: Any) -> Any:
    """A picture by the stock pipeline, (H, W, 3), before it is rounded to 8 bits."""
    return tiny.family.pipelines.draw(tiny.pipe, drawing(tiny, **changes))


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """One call of the object that makes the position tables."""

    call: RotaryCall
    tables: tuple[Tensor, ...]


class Watched:
    """In the place of the object that makes the tables, which need be no module."""

    def __init__(self, tiny: Tiny, maker: Any) -> None:
        self.tiny, self.maker, self.seen = tiny, maker, list[Rotated]()

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        output = self.maker(*inputs, **named)
        call = self.tiny.family.rotary.call(*inputs, **named)
        self.seen.append(Rotated(call=call, tables=parts_of(output)))
        return output


def parts_of(tables: Any) -> tuple[Tensor, ...]:
    """The tables that a call returns, one or several."""
    return tables if isinstance(tables, tuple) else (tables,)


@contextmanager
def watched_tables(tiny: Tiny, transformer: Any = None) -> Iterator[list[Rotated]]:
    """Every call of the object that makes the tables, stock or a policy's."""
    transformer, name = tiny.transformer if transformer is None else transformer, tiny.family.rotary.attribute
    maker = getattr(transformer, name)
    watched, modules = Watched(tiny, maker), transformer._modules
    is_module = modules.pop(name, None) is not None
    object.__setattr__(transformer, name, watched)
    try:
        yield watched.seen
    finally:
        object.__delattr__(transformer, name)
        if is_module:
            modules[name] = maker
        else:
            object.__setattr__(transformer, name, maker)


def tables(tiny: Tiny, size: tuple[int, int] = LARGE, *, num: int = 1) -> list[Rotated]:
    """The tables of one call of the transformer under whatever policy is on."""
    with watched_tables(tiny) as seen, torch.no_grad():
        velocity(tiny, noisy(tiny, size, num=num))
    return seen


def golden_transformer(tiny: Tiny) -> Any:
    """The transformer of the golden values: weights from one generator, in the order of their names."""
    told = json.loads((GOLDEN / "meta.json").read_text())[tiny.golden]
    model = getattr(diffusers, told["class"])(**told["config"]).eval()
    generator = torch.Generator().manual_seed(told["seed"])
    sharp = tuple(f"norm_{part}.weight" for part in ("q", "k", "added_q", "added_k"))
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            value = torch.randn(parameter.shape, generator=generator) * 0.05
            is_norm = parameter.ndim == 1 and "norm" in name and name.endswith("weight")
            value += (is_norm and tiny.golden != "krea2") + name.endswith(sharp)
            parameter.copy_(value)
    total = sum(float(parameter.detach().double().sum()) for parameter in model.parameters())
    assert abs(total - told["weights_check"]["sum"]) < 1e-3
    return model


def golden_tokens(tiny: Tiny) -> int:
    """T of the golden values under proportional attention."""
    told = json.loads((GOLDEN / "meta.json").read_text())[tiny.golden]
    return int(told["policies"]["proportional"]["T"])


def golden_calls(tiny: Tiny) -> dict[str, dict[str, dict[str, Any]]]:
    """By grid ("native", "double"): the transformer's inputs ("in") and its outputs by policy ("out")."""
    calls: dict[str, dict[str, dict[str, Any]]] = {}
    shapes = json.loads((GOLDEN / "meta.json").read_text())[tiny.golden].get("img_shapes", {})
    for key, tensor in sorted(load_file(GOLDEN / f"{tiny.golden}.safetensors").items()):
        grid, kind, name = key.split(".", 2)
        call = calls.setdefault(grid, {"in": {}, "out": {}})[kind]
        listed, _, place = name.partition(".")
        if place:
            call.setdefault(listed, []).append(tensor)
        else:
            call[name] = tensor
    for grid, listed in shapes.items():
        calls[grid]["in"]["img_shapes"] = [[tuple(shape) for shape in one] for one in listed]
    return calls
