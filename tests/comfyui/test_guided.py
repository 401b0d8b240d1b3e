"""The nodes' second passes beside those of `urae.generation`."""

import numpy as np
import pytest
import torch
from comfyui.guided import SCHEDULES, Imax, enlarged, low_pass, progress, sigmas_below
from PIL import Image

from urae import generation
from urae.generation import guide
from urae.generation.imax import corrected
from urae.generation.sdedit import nominal_strength
from urae.resolution import shifted_sigmas

STEPS = 6
SIGMAS = sigmas_below(1.0, shift=6.0, steps=STEPS)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 7, 10)])
def test_the_low_pass_is_that_of_urae(level, shape):
    assert torch.equal(low_pass(random(*shape), level=level), guide.low_pass(random(*shape), level=level))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("index", [0, 2, STEPS - 1])
def test_imax_corrects_the_velocity_as_urae_does(schedule, index):
    noisy, velocity, clean = (random(2, 16, 6, 9, seed=seed) for seed in range(3))
    options = {"schedule": schedule, "weight": 0.7, "low_pass_level": 1}
    step = guide.Step(velocity=velocity, noisy=noisy, sigma=SIGMAS[index], index=index, num_steps=STEPS)
    expected = corrected(step, clean[:1], generation.Imax(**options))
    found = asked(Imax(guide=clean[:1], **options), noisy, noisy - SIGMAS[index] * velocity, SIGMAS[index])
    torch.testing.assert_close((noisy - found) / SIGMAS[index], expected, atol=1e-5, rtol=0)


def asked(imax, noisy, denoised, sigma):
    options = {"transformer_options": {"sample_sigmas": SIGMAS}}
    return imax(
        {"input": noisy, "denoised": denoised, "sigma": sigma.expand(len(noisy)), "model_options": options}
    )


def test_imax_of_weight_0_changes_nothing():
    noisy, denoised = random(1, 16, 4, 4), random(1, 16, 4, 4, seed=1)
    found = asked(Imax(guide=random(1, 16, 4, 4, seed=2), weight=0.0), noisy, denoised, SIGMAS[1])
    assert torch.equal(found, denoised)


def test_imax_at_another_size_names_both():
    with pytest.raises(ValueError, match="latents of 8x4, but URAE I-Max ones of 4x4"):
        asked(Imax(guide=random(1, 16, 4, 4)), random(1, 16, 4, 8), random(1, 16, 4, 8), SIGMAS[0])


def test_progress_is_the_share_of_the_steps_and_passes_evenly_between_them():
    found = [progress(sigma, SIGMAS) for sigma in SIGMAS]
    assert found == pytest.approx([step / STEPS for step in range(STEPS + 1)])
    assert progress((SIGMAS[2] + SIGMAS[3]) / 2, SIGMAS) == pytest.approx(2.5 / STEPS)
    assert progress(torch.tensor(2.0), SIGMAS) == 0


@pytest.mark.parametrize(("shift", "steps"), [(1.0, 4), (3.0, 28), (6.0, 30)])
def test_from_noise_the_sigmas_are_those_of_the_stock_pipeline(shift, steps):
    expected = [*shifted_sigmas(shift, steps=steps), 0.0]
    np.testing.assert_allclose(sigmas_below(1.0, shift=shift, steps=steps), expected, atol=1e-6)


def test_sdedit_starts_at_its_start_sigma_and_goes_on_as_the_stock_pipeline_of_that_strength():
    found = sigmas_below(0.875, shift=3.0, steps=14)
    assert float(found[0]) == pytest.approx(0.875)
    strength = nominal_strength(0.875, shift=3.0)
    times = np.linspace(strength, strength / 14, 14)
    np.testing.assert_allclose(found[:-1], 3 * times / (1 + 2 * times), atol=1e-6)
    assert found[-1] == 0


def in_blocks(latents):
    """Stands for a VAE's decoder: a latent to 8 x 8 pixels."""
    pixels = latents[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)
    return pixels.sigmoid().movedim(1, -1)


def test_the_native_picture_is_upscaled_as_pillow_does_it():
    # Soft enough that nothing overshoots, which Pillow cuts off between its two passes.
    native, target = 0.3 * random(1, 16, 5, 8), torch.zeros(1, 16, 10, 16)
    found = enlarged(native, target, decode=in_blocks, encode=lambda pixels: pixels)
    eight_bit = (in_blocks(native)[0] * 255).round().byte().numpy()
    expected = Image.fromarray(eight_bit).resize((128, 80), Image.Resampling.BICUBIC)
    assert found.shape == (1, 80, 128, 3)
    assert float((found[0] * 255 - torch.tensor(np.asarray(expected)).float()).abs().max()) < 2


@pytest.mark.parametrize(
    ("native", "target", "sentence"),
    [((8, 8), (16, 8), "another shape"), ((16, 16), (8, 8), "exchanged"), ((8, 8), (8, 8), "exchanged")],
)
def test_latents_that_are_no_native_and_target_are_refused(native, target, sentence):
    with pytest.raises(ValueError, match=sentence):
        enlarged(torch.zeros(1, 16, *native), torch.zeros(1, 16, *target), decode=in_blocks, encode=None)
