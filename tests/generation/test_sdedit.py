"""SDEdit is stock image-to-image with a start sigma that is what it says."""

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline
from PIL import Image

from urae.generation import Sdedit, generate, nominal_strength
from urae.resolution import ResolutionPolicy, active_policy

PROMPT = "a flat tiger on a wood background"
SIZE = (128, 64)


@pytest.fixture
def native():
    return Image.linear_gradient("L").resize((96, 48)).convert("RGB")


def same(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


def stock(pipe, native, *, strength, steps, policy):
    """The same by hand, with the strength and the number of steps that stock diffusers asks for."""
    with policy.on(pipe):
        other = FluxImg2ImgPipeline(**pipe.components)
        other.set_progress_bar_config(disable=True)
        sigmas = []
        image = other(
            PROMPT,
            image=native.resize(SIZE, Image.Resampling.BICUBIC),
            strength=strength,
            num_inference_steps=steps,
            width=SIZE[0],
            height=SIZE[1],
            guidance_scale=7.5,
            max_sequence_length=32,
            generator=torch.Generator().manual_seed(5),
            callback_on_step_end=lambda pipe, i, t, state: sigmas.append(t.item() / 1000) or state,
        ).images[0]
        return image, sigmas


def test_it_is_stock_image_to_image_of_the_nominal_strength(small, native):
    policy = ResolutionPolicy(linear=True, scale=2.0, shift=3.0)
    ours = generate(small, PROMPT, size=SIZE, method="sdedit", native=native, policy=policy, seed=5, steps=7)
    expected, sigmas = stock(small, native, strength=0.7, steps=10, policy=policy)
    assert len(sigmas) == 7
    assert sigmas[0] == pytest.approx(0.875)
    difference = np.asarray(ours, dtype=int) - np.asarray(expected, dtype=int)
    assert abs(difference).max() <= 1
    assert not same(ours, stock(small, native, strength=0.6, steps=10, policy=policy)[0])


@pytest.mark.parametrize(
    ("start", "shift", "strength"),
    [(0.875, 3.0, 0.7), (0.7, 1.0, 0.7), (0.9333333, 6.0, 0.7), (0.9589041, 10.0, 0.7), (1.0, 5.0, 1.0)],
)
def test_nominal_strength(start, shift, strength):
    assert nominal_strength(start, shift=shift) == pytest.approx(strength, abs=1e-6)


@pytest.mark.parametrize("policy", ["none", ResolutionPolicy(shift=6.0)])
@pytest.mark.parametrize("start_sigma", [0.3, 0.875])
def test_it_starts_at_the_start_sigma_whatever_the_shift(small, native, policy, start_sigma):
    seen = []
    hook = small.transformer.register_forward_pre_hook(
        lambda module, arguments, settings: seen.append(settings["timestep"].item()), with_kwargs=True
    )
    method = Sdedit(start_sigma=start_sigma)
    generate(small, PROMPT, size=SIZE, method=method, native=native, policy=policy, steps=2)
    hook.remove()
    assert len(seen) == 2
    assert seen[0] == pytest.approx(start_sigma, abs=1e-6)
    assert seen[1] < seen[0]


def test_less_noise_keeps_more_of_the_picture(small, native):
    def drawn(start_sigma):
        method = Sdedit(start_sigma=start_sigma)
        image = generate(small, PROMPT, size=SIZE, method=method, native=native, steps=1)
        return np.asarray(image, dtype=float)

    # The untrained VAE is no identity, so the reference is what it makes of the picture without noise.
    clean = drawn(1e-4)
    assert abs(drawn(0.02) - clean).mean() < 0.5 * abs(drawn(0.9) - clean).mean()


def test_the_description_gives_the_nominal_strength():
    said = Sdedit().describe(steps=14, shift=3.0)
    assert said == "start sigma 0.875 is strength 0.7 under shift 3: 14 steps run, of nominally 20"


@pytest.mark.parametrize("start_sigma", [0.0, 1.2, -1.0])
def test_a_start_sigma_out_of_range_is_refused(start_sigma):
    with pytest.raises(ValueError, match=r"start_sigma is .*: expected a noise level in \(0, 1\]"):
        Sdedit(start_sigma=start_sigma)


def test_everything_is_restored(small, native):
    before = (small.transformer.pos_embed, small.scheduler, set(small.components))
    generate(small, PROMPT, size=SIZE, method="sdedit", native=native, steps=1)
    assert (small.transformer.pos_embed, small.scheduler, set(small.components)) == before
    assert active_policy(small) is None
