"""I-Max in a stock pipeline: identities, dense references, and what it leaves behind."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler
from latents import SIZE, draw, transformer_call, unpacked
from PIL import Image

from urae.families import family_of
from urae.generation import Imax, generate
from urae.generation.imax import guided
from urae.generation.native import encoded
from urae.resolution import ResolutionPolicy


@pytest.fixture
def guide():
    return torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(9))


def guided_draw(pipe, embeds, guide, size=SIZE, num=1, steps=3, **options):
    with guided(pipe, guide, Imax(**options), size=size):
        return unpacked(pipe, draw(pipe, embeds, size=size, num=num, steps=steps), size)


# Identities


def test_weight_0_is_direct(pipe, embeds, guide):
    assert torch.equal(guided_draw(pipe, embeds, guide, weight=0.0), unpacked(pipe, draw(pipe, embeds)))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_weight_1_of_all_frequencies_lands_on_the_guide(pipe, embeds, guide, steps):
    ours = guided_draw(pipe, embeds, guide, steps=steps, schedule="constant", low_pass_level=0)
    torch.testing.assert_close(ours, guide, rtol=0, atol=1e-5)


def test_the_same_in_bf16(pipe, embeds, guide):
    ours = guided_draw(pipe.to(torch.bfloat16), embeds, guide, steps=5, schedule="constant", low_pass_level=0)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), guide, rtol=0.02, atol=0.02)


def test_a_constant_low_pass_gives_the_image_the_guides_block_means(pipe, embeds, guide):
    ours = guided_draw(pipe, embeds, guide, schedule="constant", low_pass_level=2)
    means = torch.nn.functional.avg_pool2d
    torch.testing.assert_close(means(ours, 4), means(guide, 4), rtol=0, atol=1e-5)
    assert (ours - guide).abs().mean() > 0.1


@pytest.mark.parametrize(
    "options", [{}, {"shifted_patches": True}, {"repeat_text": True}, {"schedule": "cosine_shift"}], ids=str
)
def test_a_batch_is_a_loop(pipe, embeds, options):
    size = (128, 64)
    guides = torch.randn(2, 16, 8, 16, generator=torch.Generator().manual_seed(9))
    together = guided_draw(pipe, embeds, guides, size, num=2, **options)
    alone = guided_draw(pipe, embeds, guides[:1], size, **options)
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)
    assert not torch.allclose(together[1:], alone, atol=1e-2)


# The loop, written out


def dense(pipe, embeds, guide, *, shift, steps, guidance=3.5, shifted=False, grid=(1, 1)):
    """Cosine decay at level 1, by hand: explicit sums over pairs of rows and columns."""
    height, width = guide.shape[-2:]
    noisy = torch.randn(1, 16, height, width, generator=torch.Generator().manual_seed(0))
    u = [1 - i / steps for i in range(steps)] + [0.0]
    sigmas = [shift * x / (1 + (shift - 1) * x) for x in u]
    text = torch.cat([embeds["prompt_embeds"]] * grid[0] * grid[1], dim=1)
    places = [(0, 4 * row, 4 * column) for row in range(grid[0]) for column in range(grid[1])]
    text_ids = torch.tensor([place for place in places for _ in range(7)]).float()
    for i in range(steps):
        border = 1 if shifted and i % 2 == 0 else 0
        seen = torch.zeros(1, 16, height + 2 * border, width + 2 * border)
        seen[..., border : border + height, border : border + width] = noisy
        velocity = transformer_call(pipe, embeds, seen, sigmas[i], text, text_ids, guidance)
        velocity = velocity[..., border : border + height, border : border + width]
        pull = (noisy - guide) / sigmas[i] - velocity
        c = 0.5 * (1 + np.cos(np.pi * i / steps))
        smooth = torch.zeros_like(pull)
        for y in range(height):
            for x in range(width):
                rows = [r for r in range(height) if (r + border) // 2 == (y + border) // 2]
                columns = [k for k in range(width) if (k + border) // 2 == (x + border) // 2]
                smooth[..., y, x] = pull[..., rows, :][..., columns].mean(dim=(-2, -1))
        noisy = noisy + (sigmas[i + 1] - sigmas[i]) * (velocity + c * smooth)
    return noisy


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("shifted", [False, True])
def test_it_is_the_loop_written_out(pipe, embeds, guide, steps, shifted):
    with ResolutionPolicy(shift=6.0).on(pipe):
        ours = guided_draw(pipe, embeds, guide, steps=steps, shifted_patches=shifted)
    expected = dense(pipe, embeds, guide, shift=6.0, steps=steps, shifted=shifted)
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


def test_repeated_text_is_the_loop_written_out(pipe, embeds):
    size = (192, 128)  # three by two regions of the native 64 px
    guide = torch.randn(1, 16, 16, 24, generator=torch.Generator().manual_seed(9))
    with ResolutionPolicy(shift=6.0).on(pipe):
        ours = guided_draw(pipe, embeds, guide, size, steps=1, repeat_text=True, shifted_patches=True)
    expected = dense(pipe, embeds, guide, shift=6.0, steps=1, shifted=True, grid=(2, 3))
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


def test_repeated_text_keeps_positions_that_bf16_merges(pipe, embeds):
    """Above 256 tokens in a row, the hook restores what the pipeline rounded."""
    pipe.to(torch.bfloat16)
    size, seen = (16 * 300, 16), []
    pipe.transformer.pos_embed.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    guide = torch.zeros(1, 16, 2, 600)
    guided_draw(pipe, embeds, guide, size, steps=1, repeat_text=True)
    assert torch.equal(seen[0][-300:, 2], torch.arange(300.0))


# What it leaves behind, and refuses


def test_everything_is_restored(pipe, embeds, guide):
    before = draw(pipe, embeds)
    scheduler, hooks = pipe.scheduler, dict(pipe.transformer._forward_pre_hooks)
    with guided(pipe, guide, Imax(shifted_patches=True), size=SIZE):
        draw(pipe, embeds)
    with pytest.raises(KeyError), guided(pipe, guide, Imax(shifted_patches=True), size=SIZE):
        raise KeyError
    assert pipe.scheduler is scheduler
    assert dict(pipe.transformer._forward_pre_hooks) == hooks
    assert not pipe.transformer._forward_hooks
    assert torch.equal(draw(pipe, embeds), before)


def test_the_shift_is_the_methods_unless_it_says_policy():
    policy = ResolutionPolicy(rope_scale=10.0, shift=3.0)
    assert Imax().policy(policy) == ResolutionPolicy(rope_scale=10.0, shift=6.0)
    assert Imax(shift="policy").policy(policy) is policy
    assert Imax(shift=4).policy(None) == ResolutionPolicy(shift=4.0, exact_ids=False)
    assert Imax(shift="policy").policy(None) is None


def test_a_transformer_compiled_in_place_is_refused(pipe, guide):
    pipe.transformer.compile(backend="eager")
    with (
        pytest.raises(ValueError, match=r"use torch.compile\(transformer\)"),
        guided(pipe, guide, Imax(shifted_patches=True), size=SIZE),
    ):
        pass


def test_repeated_text_without_effect_is_refused(pipe, guide):
    with (
        pytest.raises(ValueError, match="repeat_text has no effect at 96x64"),
        guided(pipe, guide, Imax(repeat_text=True), size=SIZE),
    ):
        pass


def test_what_a_pipeline_cannot_follow_is_refused_before_the_native_pass(small):
    small.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    steps = []
    with pytest.raises(ValueError, match="FlowMatchHeunDiscreteScheduler takes other steps than Euler's"):
        generate(
            small,
            "a tiger",
            size=(128, 64),
            method=Imax(shift="policy"),
            policy="none",
            on_step=lambda: steps.append(1),
        )
    assert not steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"schedule": "linear"},
            "schedule is 'linear': expected one of cosine_decay, constant, cosine_shift",
        ),
        ({"weight": 1.5}, r"weight is 1.5: expected a factor in \[0, 1\]"),
        ({"low_pass_level": -1}, "low_pass_level is -1: expected a whole number of 0 or more"),
        ({"shift": 0.0}, "shift is 0.0: expected a number above 0, or 'policy'"),
        ({"shift": "auto"}, "shift is 'auto'"),
        ({"native_steps": 0}, "native_steps is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Imax(**options)


# Through generate


def test_a_whole_image(small):
    size, prompt = (128, 64), "a flat tiger on a wood background"
    native = Image.linear_gradient("L").resize((96, 48)).convert("RGB")
    method = Imax(low_pass_level=2)
    ours = generate(small, prompt, size=size, method=method, native=native, steps=2, seed=3)
    guide = encoded(small, native.resize(size, Image.Resampling.BICUBIC))
    assert guide.shape == (1, 16, 8, 16)
    policy = ResolutionPolicy.for_size(small, size)
    with (
        ResolutionPolicy(**{**policy.to_dict(), "shift": 6.0}).on(small),
        guided(small, guide, method, size=size),
    ):
        expected = small(
            prompt,
            width=128,
            height=64,
            num_inference_steps=2,
            guidance_scale=7.0,
            max_sequence_length=32,
            generator=torch.Generator().manual_seed(3),
        ).images[0]
    assert np.array_equal(np.asarray(ours), np.asarray(expected))
    assert ours.info["guidance"] == "7.0"


def test_an_image_of_weight_0_is_the_direct_one(small):
    native = Image.linear_gradient("L").resize((96, 48)).convert("RGB")
    settings = {"size": (128, 64), "steps": 2, "guidance": 2.0}
    ours = generate(small, "a tiger", method=Imax(weight=0.0, shift="policy"), native=native, **settings)
    assert np.array_equal(np.asarray(ours), np.asarray(generate(small, "a tiger", **settings)))


def test_the_guide_is_the_mean_of_the_posterior_as_the_family_normalises_it(small):
    picture = Image.linear_gradient("L").resize((64, 32)).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    expected = family_of(small).latents.encode(small, pixels).mean
    torch.testing.assert_close(encoded(small, picture), expected)
