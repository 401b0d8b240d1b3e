"""What is Z-Image's own: time reversed, lists of several lengths, one number of tokens for two calls of an object that
is no module, tables without an end, Turbo, the names of other tools."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_families import TINY, drawing, embeddings, noisy, vae, velocity
from tiny_z_image import TEXT_TOKENS, z_image

from urae.adapters.convert import LAYOUTS, lost_by_stock, parse, to_layout
from urae.adapters.targets import linear_layers, select
from urae.execution.strips import has_strips
from urae.families.z_image import ZImage
from urae.families.z_image.text import ragged
from urae.generation import generate
from urae.resolution import ResolutionPolicy, dynamic_shift, own_shift

FAMILY = ZImage()
LINEAR = ResolutionPolicy(linear=True, scale=2.0)


@pytest.fixture(scope="module")
def tiny():
    return next(one for one in TINY if one.name == FAMILY.name)


@pytest.fixture(scope="module")
def turbo():
    pipe = z_image(vae=vae())
    pipe.register_to_config(_name_or_path="somewhere/Z-Image-Turbo")
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- positions


def test_each_sample_has_the_factor_of_its_own_tokens():
    """8 x 6 image tokens are padded to 64, texts of 8 and of 40 tokens to 32 and 64: 96 and 128 in all, in the
    image's call and in the text's."""
    pipe = z_image(vae=vae())
    inputs = {
        "x": [torch.randn(16, 1, 16, 12)] * 2,
        "t": torch.zeros(2),
        "cap_feats": [torch.randn(num, 16) for num in (8, 40)],
    }
    told = FAMILY.rotary.told(inputs)
    positions = torch.zeros(2 * 64, 3), torch.zeros(56 + 88, 3)  # the text's padding has positions twice
    found = [FAMILY.rotary.call(ids, told=told).num_tokens.tolist() for ids in positions]
    assert found == [[96] * 64 + [128] * 64, [96] * 56 + [128] * 88]
    policy = ResolutionPolicy(proportional=True, native_tokens=96)
    with torch.no_grad(), policy.on(pipe.transformer):
        both = pipe.transformer(**inputs, return_dict=False)[0]
        for place in range(2):
            alone = {name: values[place : place + 1] for name, values in inputs.items()}
            found = pipe.transformer(**alone, return_dict=False)[0][0]
            torch.testing.assert_close(found, both[place], atol=1e-5, rtol=0)


def test_the_factor_is_on_both_streams(tiny):
    """Of 48 image tokens, padded to 64, and text padded to 32."""
    with ResolutionPolicy(proportional=True, native_tokens=48).on(tiny.transformer):
        pictures, texts = [], []
        latents, text = noisy(tiny), embeddings(tiny)
        seen = tiny.transformer.rope_embedder.forward

        def watched(ids):
            (pictures if not pictures else texts).append(found := seen(ids))
            return found

        tiny.transformer.rope_embedder.forward = watched
        velocity(tiny, latents, text=text)
    for found in (*pictures, *texts):
        torch.testing.assert_close(found.abs(), torch.full(found.shape, math.log(96, 48) ** 0.25))


def test_sizes_beyond_the_stock_tables(tiny):
    """Of 512 rows, where stock diffusers ends, a policy's tables go on."""
    ids = torch.tensor([[33, 700, 0]])
    with pytest.raises(IndexError):
        tiny.transformer.rope_embedder(ids)
    latents = torch.randn(1, 16, 2 * 520, 2)
    with torch.no_grad(), LINEAR.on(tiny.transformer):
        assert velocity(tiny, latents).shape == latents.shape


def test_pictures_to_refer_to_are_refused_under_a_policy():
    with pytest.raises(ValueError, match="reference pictures"):
        FAMILY.rotary.told({"x": [[torch.zeros(16, 1, 2, 2)]], "cap_feats": [[torch.zeros(1, 16)]]})


def test_the_default_policy_scales_theta_by_what_fits_it():
    """256^(1/4) = 4, and no less than twice the scale, or the clip would have no effect."""
    pipe = z_image(vae=vae())
    pipe.vae.register_to_config(sample_size=1024)
    found = [ResolutionPolicy.for_size(pipe, size).rope_scale for size in (1536, 2048, 4096)]
    assert found == [4.0, 4.0, 8.0]


# --- text and latents


def test_text_is_what_the_pipeline_makes_of_it(tiny):
    found = embeddings(tiny, "a b", "c d e")
    with torch.no_grad():
        expected, _ = tiny.pipe.encode_prompt(["a b", "c d e"], max_sequence_length=TEXT_TOKENS)
    assert [len(one) for one in expected] == [5, 6]  # three are the template's
    for one, other in zip(ragged(found), expected, strict=True):
        assert torch.equal(one, other)
    assert found["prompt_embeds"].shape == (2, TEXT_TOKENS, 16)
    assert not found["prompt_embeds"][~found["prompt_embeds_mask"]].any()


def test_the_velocity_leads_from_noise_to_picture(tiny):
    """The transformer's own, at t = 1 - sigma, is the opposite."""
    latents, text = noisy(tiny), embeddings(tiny)
    with torch.no_grad():
        found = velocity(tiny, latents, text=text, sigma=0.75)
        theirs = tiny.transformer([latents[0][:, None]], torch.tensor([0.25]), ragged(text))[0][0]
    assert torch.equal(found[0], -theirs[:, 0])


def test_a_scale_of_1_plus_s_is_the_pipelines_s(tiny):
    """Where the pipeline guides by v(prompt) + s (v(prompt) - v(negative))."""
    ours = FAMILY.pipelines.draw(tiny.pipe, drawing(tiny, guidance=3.5, negative="c"))
    theirs = tiny.pipe(
        "a b",
        negative_prompt="c",
        width=128,
        height=96,
        guidance_scale=2.5,
        num_inference_steps=2,
        max_sequence_length=TEXT_TOKENS,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    assert (ours == theirs).all()


def test_words_to_avoid_go_with_embeddings(tiny):
    found = FAMILY.pipelines.draw(tiny.pipe, drawing(tiny, prompt=embeddings(tiny, "a b"), negative="c"))
    assert (found == FAMILY.pipelines.draw(tiny.pipe, drawing(tiny, negative="c"))).all()


def test_the_vae_runs_in_strips(tiny):
    assert has_strips(tiny.pipe.vae)


@pytest.mark.parametrize("region", [False, True])
def test_redrawing_from_the_beginning_leaves_nothing_of_the_picture(tiny, region):
    """But for what lies outside of a region."""
    pictures = [
        tiny.pipe.image_processor.numpy_to_pil(np.full((1, 96, 128, 3), value, np.float32))[0]
        for value in (0.2, 0.8)
    ]
    mask = tiny.pipe.image_processor.numpy_to_pil(np.ones((1, 96, 128, 3), np.float32))[0].convert("L")
    one, other = (
        FAMILY.pipelines.redraw(
            tiny.pipe,
            drawing(tiny),
            picture,
            sigmas=np.linspace(1.0, 0.5, 2),
            start_sigma=1.0,
            **({"mask": mask} if region else {}),
        )
        for picture in pictures
    )
    np.testing.assert_allclose(one, other, atol=1e-3)


# --- the shift


def test_the_static_shift_is_the_schedulers(tiny):
    assert dynamic_shift(tiny.pipe, 64) == dynamic_shift(tiny.pipe, 1024) == own_shift(tiny.pipe) == 6.0
    generate(tiny.pipe, "a", size=64, steps=2, policy="none")
    assert float(tiny.pipe.scheduler.sigmas[1]) == pytest.approx(6 * 0.5 / (1 + 5 * 0.5), rel=1e-5)
    with ResolutionPolicy(shift=2.0).on(tiny.pipe):
        assert dynamic_shift(tiny.pipe, 64) == 2.0
        assert own_shift(tiny.pipe) == 6.0


# --- Turbo


def test_turbo_takes_no_guidance(turbo):
    assert FAMILY.guidance.kind(turbo) == "none"
    with pytest.raises(ValueError, match="takes no guidance scale"):
        generate(turbo, "a", size=64, guidance=2.0)
    with pytest.raises(ValueError, match="takes no negative prompt"):
        generate(turbo, "a", size=64, negative="b")
    sizes = []
    hook = turbo.transformer.register_forward_hook(
        lambda module, inputs, output: sizes.append(len(inputs[0]))
    )
    picture = generate(turbo, "a", size=64, steps=2)
    hook.remove()
    assert sizes == [1, 1]  # of one prompt
    assert picture.info["guidance"] == "none"


# --- layers and layouts


def factors_of(transformer, pattern="*"):
    layers = linear_layers(transformer)
    torch.manual_seed(0)
    return {
        name: (torch.randn(2, layers[name].in_features), torch.randn(layers[name].out_features, 2))
        for name in select(layers, (pattern,))
    }


def test_targets_leave_the_texts_refiner_alone(tiny):
    layers = linear_layers(tiny.transformer)
    assert "context_refiner.0.attention.to_q" in layers
    chosen = select(layers, FAMILY.layers.wide)
    blocks = [name for name in layers if name.startswith(("layers.", "noise_refiner."))]
    assert chosen == [name for name in blocks if "adaLN" not in name]


@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_"])
@pytest.mark.parametrize("fused", [False, True])
def test_files_of_other_trainers_are_read(tiny, prefix, fused):
    """With q, k and v in one, as ComfyUI's checkpoints have them, and apart, as diffusers has."""
    factors = factors_of(tiny.transformer, "layers.*.attention.*")
    if fused:
        named = to_layout(
            factors, "kohya" if prefix == "lora_unet_" else "comfy", model="ZImageTransformer2DModel"
        )
        assert any("qkv" in name for name in named)
    else:
        dot = "_" if prefix == "lora_unet_" else "."
        named = {
            f"{prefix}{name.replace('.', dot)}.lora_{part}.weight": tensor
            for name, pair in factors.items()
            for part, tensor in zip(("down", "up"), pair, strict=True)
        }
    assert all(name.startswith(prefix) for name in named)
    found = parse(named).factors
    assert found.keys() == factors.keys()
    for name, (A, B) in factors.items():
        torch.testing.assert_close(found[name][1] @ found[name][0], B @ A, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_stock_diffusers_leaves_out_is_known(tiny, tmp_path, layout):
    factors, model = factors_of(tiny.transformer), type(tiny.transformer).__name__
    save_file(to_layout(factors, layout, model=model), tmp_path / "adapter.safetensors")
    read = type(tiny.pipe).lora_state_dict(tmp_path / "adapter.safetensors")
    lost = [name for name in factors if f"transformer.{name}.lora_A.weight" not in read]
    assert lost_by_stock(factors, layout, model=model) == lost


def test_several_processes_are_refused_with_a_reason(tiny):
    with pytest.raises(ValueError, match="cannot share an image of Z-Image"):
        list(FAMILY.layers.exchanges(tiny.transformer))
