"""What is Qwen-Image's own: text that moves with the image, no mask where no text is padded, the stretched schedule, a
guided velocity that keeps its length, names that are diffusers' own."""

import numpy as np
import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from safetensors.torch import save_file
from tiny_families import TINY, drawing, drawn, embeddings, noisy, velocity
from tiny_qwen_image import CONFIG, qwen_image

from urae.adapters.convert import LAYOUTS, lost_by_stock, parse, to_layout
from urae.adapters.targets import linear_layers, select
from urae.families.qwen_image import QwenImage
from urae.generation import generate
from urae.resolution import ResolutionPolicy, dynamic_shift, own_shift
from urae.resolution.embedding import PolicyEmbedding

FAMILY = QwenImage()
TEXT = 12


@pytest.fixture(scope="module")
def tiny():
    return next(one for one in TINY if one.name == FAMILY.name)


# --- positions


def tables_under(policy, transformer, rows, columns):
    """Of the image and of 7 text tokens."""
    shapes = [[(1, rows, columns)]]
    if policy is None:
        return transformer.pos_embed(shapes, max_txt_seq_len=7, device=torch.device("cpu"))
    maker = PolicyEmbedding(FAMILY, transformer, policy)
    return maker(shapes, max_txt_seq_len=7, device=torch.device("cpu"))


POLICIES = {
    "linear": (ResolutionPolicy(linear=True, scale=2.0), 166),
    "clip": (ResolutionPolicy(rope_scale=10.0, rope_clip=True, scale=2.0), 166),
    "ntk": (ResolutionPolicy(rope="ntk", scale=4.0), 332),
    "theta": (ResolutionPolicy(rope_scale=10.0), 164),  # by twice the 41 tokens at which text begins natively
}


@pytest.mark.parametrize("rule", POLICIES)
def test_text_begins_where_it_does_at_the_native_size(tiny, rule):
    """Whatever the rule, and with all of its frequencies as they were."""
    policy, side = POLICIES[rule]
    _, found = tables_under(policy, tiny.transformer, side, side)
    native = 82 if rule == "theta" else 83
    _, expected = tables_under(None, tiny.transformer, native, native)
    first = (found / expected).angle()[:, 0]  # of the fastest frequency, by which text moves
    moved = 0.0 if rule == "theta" else 0.5  # 83 halves make 41 and a half
    torch.testing.assert_close(first, torch.full((7,), moved), atol=1e-4, rtol=0)


def test_text_moves_as_in_stock_where_positions_are_stock(tiny):
    for policy in (ResolutionPolicy(), ResolutionPolicy(proportional=True, native_tokens=256 * 256 + 7)):
        found, expected = (tables_under(one, tiny.transformer, 256, 256) for one in (policy, None))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_sizes_beyond_the_stock_tables(tiny):
    """Stock has 4096 positions on either side of the middle; with text behind them a picture is smaller."""
    shapes = {"max_txt_seq_len": 7, "device": torch.device("cpu")}
    with pytest.raises(RuntimeError):
        tiny.transformer.pos_embed([[(1, 2, 8300)]], **shapes)
    maker = PolicyEmbedding(FAMILY, tiny.transformer, ResolutionPolicy(linear=True, scale=2.0))
    image, text = maker([[(1, 2, 8300)]], **shapes)
    assert (len(image), len(text)) == (2 * 8300, 7)


@pytest.mark.parametrize("shapes", [[[(1, 4, 4), (1, 4, 4)]], [[(2, 4, 4)]]])
def test_pictures_to_refer_to_are_refused_under_a_policy(shapes):
    with pytest.raises(ValueError, match="reference pictures"):
        FAMILY.rotary.call(shapes, max_txt_seq_len=3)


def test_several_shapes_in_a_call_are_refused_under_a_policy():
    """Stock takes the first one's positions for all, with a warning."""
    with pytest.raises(ValueError, match="several shapes"):
        FAMILY.rotary.call([[(1, 4, 4)], [(1, 4, 6)]], max_txt_seq_len=3)


def test_layers_of_an_image_are_refused():
    transformer = QwenImageTransformer2DModel(**CONFIG, use_layer3d_rope=True)
    with pytest.raises(ValueError, match="draws an image in layers"):
        FAMILY.rotary.axes(transformer)


def test_the_default_policy_scales_theta_by_what_fits_it():
    pipe = qwen_image(native=0)
    found = [ResolutionPolicy.for_size(pipe, size) for size in (1328, 2656, 4096)]
    assert [policy.rope_scale for policy in found] == [1.0, 10.0, 10.0]
    assert found[0].native_tokens == 83 * 83 + TEXT


# --- text, latents, guidance


def test_text_is_what_the_pipeline_makes_of_it(tiny):
    found = embeddings(tiny, "a b", "c d e")
    with torch.no_grad():
        tokens, mask = tiny.pipe.encode_prompt(["a b", "c d e"], max_sequence_length=TEXT)
    assert mask.int().tolist() == [[1] * 7 + [0], [1] * 8]  # five are the template's
    assert torch.equal(found["prompt_embeds"][:, :8], tokens)
    assert torch.equal(found["prompt_embeds_mask"][:, :8], mask.bool())
    assert not found["prompt_embeds_mask"][:, 8:].any()


def test_padded_text_has_no_effect(tiny):
    text, latents = embeddings(tiny, "a b", "c d e"), noisy(tiny, num=2)
    padding = ~text["prompt_embeds_mask"]
    other = text["prompt_embeds"].clone()
    other[padding] += 3.0
    with torch.no_grad():
        plain = velocity(tiny, latents, text=text)
        assert torch.equal(velocity(tiny, latents, text={**text, "prompt_embeds": other}), plain)


def test_latents_are_the_pipelines_own(tiny):
    packed = torch.randn(1, 48, 64, generator=torch.Generator().manual_seed(0))
    expected = tiny.pipe._unpack_latents(packed, 96, 128, 8)[:, :, 0]
    assert torch.equal(FAMILY.latents.unpack(packed, 12, 16), expected)
    assert torch.equal(FAMILY.latents.pack(expected), packed)
    settings = {"generator": torch.Generator().manual_seed(3), "output_type": "latent"}
    latents = drawn(tiny, settings=settings)
    picture = drawn(
        tiny, settings=settings | {"generator": torch.Generator().manual_seed(3), "output_type": "pt"}
    )
    decoded = FAMILY.latents.decode(tiny.pipe, FAMILY.latents.unpack(latents[None], 12, 16))
    assert torch.equal((decoded / 2 + 0.5).clamp(0, 1)[0], picture)


def test_guidance_is_the_pipelines_own(tiny):
    ours = drawn(tiny, negative="c", guidance=3.0)
    theirs = tiny.pipe(
        "a b",
        negative_prompt="c",
        width=128,
        height=96,
        true_cfg_scale=3.0,
        num_inference_steps=2,
        max_sequence_length=TEXT,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    assert (ours == theirs).all()
    assert (ours == drawn(tiny, prompt=embeddings(tiny, "a b"), negative="c", guidance=3.0)).all()


@pytest.mark.parametrize("region", [False, True])
def test_redrawing_from_the_beginning_leaves_nothing_of_the_picture(tiny, region):
    """But for what lies outside of a region."""
    pictures = [
        tiny.pipe.image_processor.numpy_to_pil(np.full((1, 96, 128, 3), value, np.float32))[0]
        for value in (0.2, 0.8)
    ]
    mask = tiny.pipe.image_processor.numpy_to_pil(np.ones((1, 96, 128, 3), np.float32))[0].convert("L")
    with ResolutionPolicy().on(tiny.pipe):
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


def test_the_published_shifts():
    pipe = qwen_image(native=0)
    assert FAMILY.latents.native_size(pipe) == 1328
    found = [dynamic_shift(pipe, size) for size in (1024, 1328, 2048, 4096)]
    assert found == pytest.approx([2.0, 2.3, 3.72, 44.3], rel=0.01)
    assert own_shift(pipe) == found[1]


def test_a_static_shift_is_not_stretched(tiny):
    """Stock ends the steps at 0.02, whatever the shift."""
    generate(tiny.pipe, "a", size=64, steps=4, policy="none")
    assert float(tiny.pipe.scheduler.sigmas[-2]) == pytest.approx(0.02, rel=1e-4)
    with ResolutionPolicy(shift=2.0).on(tiny.pipe):
        drawn(tiny, size=(64, 64), steps=4)
        assert float(tiny.pipe.scheduler.sigmas[-2]) == pytest.approx(2 * 0.25 / (1 + 0.25), rel=1e-5)


def test_a_single_stretched_step_is_refused(tiny):
    with pytest.raises(
        ValueError, match="steps is 1, but the scheduler stretches its noise levels from 1 to 0.02"
    ):
        generate(tiny.pipe, "a", size=64, steps=1, policy="none")
    assert generate(tiny.pipe, "a", size=128, steps=1).size == (128, 128)


# --- layers and layouts


def factors_of(transformer, pattern="*"):
    layers = linear_layers(transformer)
    torch.manual_seed(0)
    return {
        name: (torch.randn(2, layers[name].in_features), torch.randn(layers[name].out_features, 2))
        for name in select(layers, (pattern,))
    }


@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_", "transformer.", ""])
def test_files_of_other_trainers_are_read(tiny, prefix):
    factors = factors_of(tiny.transformer)
    dot = "_" if prefix == "lora_unet_" else "."
    named = {
        f"{prefix}{name.replace('.', dot)}.lora_{part}.weight": tensor
        for name, pair in factors.items()
        for part, tensor in zip(("down", "up"), pair, strict=True)
    }
    found = parse(named).factors
    assert found.keys() == factors.keys()
    assert all(torch.equal(found[name][0], A) for name, (A, _) in factors.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_stock_diffusers_leaves_out_is_known(tiny, tmp_path, layout):
    factors, model = factors_of(tiny.transformer), type(tiny.transformer).__name__
    save_file(to_layout(factors, layout, model=model), tmp_path / "adapter.safetensors")
    read = type(tiny.pipe).lora_state_dict(tmp_path / "adapter.safetensors")
    lost = [name for name in factors if f"transformer.{name}.lora_A.weight" not in read]
    assert lost_by_stock(factors, layout, model=model) == lost


def test_several_processes_are_refused_with_a_reason(tiny):
    with pytest.raises(ValueError, match="cannot share an image of Qwen-Image"):
        list(FAMILY.layers.exchanges(tiny.transformer))
