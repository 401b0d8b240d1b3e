"""Tiled generation in a stock pipeline: identities, the loop written out, and what it leaves behind."""

import math

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from latents import SIZE, draw, transformer_call, unpacked

from urae.execution import MemoryPlan, forward_replaced
from urae.generation import Tiled, generate
from urae.generation.tiled import window_corners, windowed
from urae.resolution import ResolutionPolicy

PROMPT = "a flat tiger on a wood background"


def tiled_draw(pipe, embeds, *, size=SIZE, num=1, steps=3, **options):
    with windowed(pipe, Tiled(**options), size=size):
        return unpacked(pipe, draw(pipe, embeds, size=size, num=num, steps=steps), size)


# Identities


@pytest.mark.parametrize("weighting", ["constant", "tapered"])
@pytest.mark.parametrize(("size", "window"), [((64, 64), "native"), ((48, 64), "native"), ((96, 64), 96)])
def test_one_window_is_direct(pipe, embeds, size, window, weighting):
    ours = tiled_draw(pipe, embeds, size=size, num=2, window=window, weighting=weighting)
    torch.testing.assert_close(
        ours, unpacked(pipe, draw(pipe, embeds, size=size, num=2), size), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_window_is_direct_bit_for_bit(pipe, embeds, dtype):
    pipe.to(dtype)
    ours = tiled_draw(pipe, embeds, size=(64, 32), steps=2)
    assert torch.equal(ours, unpacked(pipe, draw(pipe, embeds, size=(64, 32), steps=2), (64, 32)))


def test_a_batch_is_a_loop(pipe, embeds):
    together, alone = tiled_draw(pipe, embeds, num=2), tiled_draw(pipe, embeds)
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)
    assert not torch.allclose(together[1:], alone, atol=1e-2)


@pytest.mark.parametrize(("num", "calls"), [(1, 6), (4, 2), (6, 1), (50, 1)])
def test_how_many_windows_share_a_call_changes_nothing_but_the_calls(pipe, embeds, num, calls):
    size, batches = (128, 96), []
    pipe.transformer.x_embedder.register_forward_hook(lambda module, given, out: batches.append(len(out)))
    ours = tiled_draw(pipe, embeds, size=size, steps=1, windows_per_call=num)
    assert len(batches) == calls
    assert sum(batches) == 6
    torch.testing.assert_close(ours, tiled_draw(pipe, embeds, size=size, steps=1), rtol=0, atol=1e-5)


# The loop, written out


def dense(pipe, embeds, size, *, side, overlap, shift, steps, tapered=False, guidance=3.5):
    """Window by window, with the weights summed value by value."""
    height, width = size[1] // 8, size[0] // 8
    h, w = min(side // 8, height), min(side // 8, width)
    noisy = torch.randn(1, 16, height, width, generator=torch.Generator().manual_seed(0))
    u = [1 - i / steps for i in range(steps)] + [0.0]
    sigmas = [shift * x / (1 + (shift - 1) * x) for x in u]
    text, text_ids = embeds["prompt_embeds"], torch.zeros(7, 3)
    for i in range(steps):
        total, counts = torch.zeros_like(noisy), torch.zeros(height, width)
        for top, left in window_corners((height, width), (h, w), overlap=overlap, token=2):
            seen = noisy[..., top : top + h, left : left + w]
            velocity = transformer_call(pipe, embeds, seen, sigmas[i], text, text_ids, guidance)
            for y in range(h):
                for x in range(w):
                    bump = math.sin(math.pi * (y + 0.5) / h) ** 2 * math.sin(math.pi * (x + 0.5) / w) ** 2
                    weight = bump if tapered else 1.0
                    total[..., top + y, left + x] += weight * velocity[..., y, x]
                    counts[top + y, left + x] += weight
        noisy = noisy + (sigmas[i + 1] - sigmas[i]) * total / counts
    return noisy


@pytest.mark.parametrize(
    ("size", "overlap", "weighting"),
    [
        ((96, 64), 0.5, "constant"),
        ((96, 64), 0.5, "tapered"),
        ((112, 80), 0.25, "constant"),
        ((80, 32), 0.0, "tapered"),
    ],
)
def test_it_is_the_loop_written_out(pipe, embeds, size, overlap, weighting):
    with ResolutionPolicy(shift=3.0).on(pipe):
        ours = tiled_draw(pipe, embeds, size=size, steps=2, overlap=overlap, weighting=weighting)
    expected = dense(
        pipe, embeds, size, side=64, overlap=overlap, shift=3.0, steps=2, tapered=weighting == "tapered"
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


def test_a_model_without_guidance_input(pipe, embeds):
    torch.manual_seed(0)
    config = {**pipe.transformer.config, "guidance_embeds": False}
    pipe.transformer = FluxTransformer2DModel.from_config(config).eval()
    with ResolutionPolicy(shift=3.0).on(pipe):
        ours = tiled_draw(pipe, embeds, steps=1)
    expected = dense(pipe, embeds, SIZE, side=64, overlap=0.5, shift=3.0, steps=1, guidance=None)
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("whole", "window"), [((16, 24), (8, 8)), ((8, 18), (8, 8)), ((14, 10), (6, 10))])
def test_windows_cover_with_the_overlap_that_is_asked_for(whole, window, overlap):
    corners = window_corners(whole, window, overlap=overlap, token=2)
    covered = torch.zeros(whole)
    for top, left in corners:
        assert top % 2 == left % 2 == 0
        assert covered[top : top + window[0], left : left + window[1]].shape == window
        covered[top : top + window[0], left : left + window[1]] += 1
    assert covered.min() >= 1
    for axis in (0, 1):
        starts = sorted({corner[axis] for corner in corners})
        assert (starts[0], starts[-1]) == (0, whole[axis] - window[axis])
        steps = [b - a for a, b in zip(starts, starts[1:], strict=False)]
        widest = max(2, window[axis] * (1 - overlap))
        assert all(step <= widest for step in steps)
        # One window less would leave a step that is too wide.
        widest_in_tokens = max(1, math.floor(window[axis] / 2 * (1 - overlap)))
        assert not steps or (len(steps) - 1) * widest_in_tokens < (whole[axis] - window[axis]) / 2


# Through generate


def test_only_the_shift_of_a_policy_is_taken(small):
    policy = ResolutionPolicy(linear=True, scale=2.0, proportional=True, native_tokens=48, shift=2.0)
    assert Tiled().policy(policy) == ResolutionPolicy(shift=2.0, exact_ids=False)
    assert Tiled().policy(None) is None
    settings = {"size": (96, 64), "method": "tiled", "steps": 2}
    ours = generate(small, PROMPT, policy=policy, **settings)
    other = generate(small, PROMPT, policy=ResolutionPolicy(shift=2.0), **settings)
    assert np.array_equal(np.asarray(ours), np.asarray(other))
    assert '"shift": 2.0' in ours.info["policy"]


def test_at_native_size_the_image_is_the_direct_one(small):
    settings = {"size": (64, 64), "steps": 2, "seed": 3}
    ours = generate(small, PROMPT, method="tiled", **settings)
    assert np.array_equal(np.asarray(ours), np.asarray(generate(small, PROMPT, **settings)))


def test_an_offloaded_pipeline_gives_the_same(small):
    settings = {"size": (96, 64), "method": "tiled", "steps": 2}
    expected = generate(small, PROMPT, **settings)
    ours = generate(small, PROMPT, **settings, memory=MemoryPlan(device="cpu", offload="model"))
    assert np.array_equal(np.asarray(ours), np.asarray(expected))
    assert not hasattr(small.transformer, "_hf_hook")


# What it leaves behind, and refuses


def test_everything_is_restored(pipe, embeds):
    before = draw(pipe, embeds)
    tiled_draw(pipe, embeds)
    with pytest.raises(KeyError), windowed(pipe, Tiled(), size=SIZE):
        raise KeyError
    assert "forward" not in vars(pipe.transformer)
    assert torch.equal(draw(pipe, embeds), before)


def test_a_forward_that_was_replaced_before_is_back():
    linear, values = torch.nn.Linear(2, 2), torch.ones(1, 2)
    expected = linear(values)

    def doubled(forward):
        return lambda input: 2 * forward(input)

    with forward_replaced(linear, doubled, what="twice"):
        own = linear.forward
        with forward_replaced(linear, doubled, what="twice"):
            assert torch.equal(linear(values), 4 * expected)
        assert linear.forward is own
        assert torch.equal(linear(values), 2 * expected)
    assert torch.equal(linear(values), expected)


def test_a_compiled_module_is_obeyed_and_restored():
    linear, values = torch.nn.Linear(2, 2), torch.ones(1, 2)
    compiled = torch.compile(linear, backend="eager")
    forward = compiled.forward
    with forward_replaced(compiled, lambda forward: lambda input: 2 * forward(input), what="twice"):
        torch.testing.assert_close(compiled(values), 2 * linear(values))
    assert compiled.forward is forward
    torch.testing.assert_close(compiled(values), linear(values))


def test_a_transformer_compiled_in_place_is_refused(pipe):
    pipe.transformer.compile(backend="eager")
    with pytest.raises(ValueError, match="tiled needs"), windowed(pipe, Tiled(), size=SIZE):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 60}, "window is 60: expected 'native' or a multiple of 16 pixels"),
        ({"window": 0}, "window is 0"),
        ({"window": "large"}, "window is 'large'"),
        ({"overlap": 1.0}, r"overlap is 1.0: expected a share in \[0, 1\), such as 0.5"),
        ({"weighting": "gaussian"}, "weighting is 'gaussian': expected one of constant, tapered"),
        ({"windows_per_call": 0}, "windows_per_call is 0: expected a whole number of 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Tiled(**options)
