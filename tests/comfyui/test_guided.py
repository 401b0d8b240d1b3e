"""The nodes' second passes beside those of `urae.generation`."""

import numpy as np
import pytest
import torch
from comfyui.guided import (
    SCHEDULES,
    Hiflow,
    Imax,
    enlarged,
    low_pass,
    progress,
    sharpened,
    sigmas_below,
    smooth,
)
from PIL import Image

from urae import generation
from urae.generation import guide, hiflow
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


def test_a_video_models_latents_are_smoothed_as_the_others():
    flat = random(2, 3, 7, 10)
    assert torch.equal(low_pass(flat[:, :, None], level=1)[:, :, 0], low_pass(flat, level=1))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 7, 10)])
def test_hiflows_low_pass_is_that_of_urae(shape):
    assert torch.equal(smooth(random(*shape), cutoff=0.2), guide.smooth(random(*shape), cutoff=0.2))


def test_hiflow_corrects_each_velocity_as_urae_does_and_begins_each_pass_anew():
    clean, options = random(1, 16, 6, 9), {"direction": 0.8, "acceleration": 0.4, "cutoff": 0.3}
    method = Hiflow(guide=clean, **options)
    for _ in range(2):
        before = None
        for index, sigma in enumerate(SIGMAS[:-1]):
            noisy, velocity = random(2, 16, 6, 9, seed=index), random(2, 16, 6, 9, seed=index + 50)
            step = guide.Step(velocity=velocity, noisy=noisy, sigma=sigma, index=index, num_steps=STEPS)
            reference = (noisy - clean) / sigma
            expected = hiflow.corrected(step, reference, before, generation.Hiflow(**options))
            found = asked(method, noisy, noisy - sigma * velocity, sigma)
            torch.testing.assert_close((noisy - found) / sigma, expected, atol=2e-5, rtol=0)
            before = expected, reference
        assert method.before is None  # nothing is kept of a pass


def test_hiflow_sharpens_as_urae_does():
    picture = in_blocks(0.5 * random(1, 16, 5, 8)).movedim(-1, 1)
    eight_bit = (picture[0].movedim(0, -1) * 255).round().byte().numpy()
    expected = np.asarray(hiflow.sharpened(Image.fromarray(eight_bit), amount=1.0)).astype(float)
    found = sharpened(picture, amount=1.0)
    assert np.abs(found[0].movedim(0, -1).numpy() * 255 - expected).max() < 2
    assert float((found - picture).abs().max()) > 0.05
    assert torch.equal(sharpened(picture, amount=0.0), picture)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("index", [0, 2, STEPS - 1])
def test_imax_corrects_the_velocity_as_urae_does(schedule, index):
    noisy, velocity, clean = (random(2, 16, 6, 9, seed=seed) for seed in range(3))
    options = {"schedule": schedule, "weight": 0.7, "low_pass_level": 1}
    step = guide.Step(velocity=velocity, noisy=noisy, sigma=SIGMAS[index], index=index, num_steps=STEPS)
    expected = corrected(step, clean[:1], generation.Imax(**options))
    found = asked(Imax(guide=clean[:1], **options), noisy, noisy - SIGMAS[index] * velocity, SIGMAS[index])
    torch.testing.assert_close((noisy - found) / SIGMAS[index], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["imax", "hiflow"])
def test_low_frequencies_of_flux2_are_of_its_latents_and_not_of_its_patches(method):
    """ComfyUI has 128 channels at 16 px, which are 32 channels at 8 px in `urae`, as everywhere."""
    noisy, velocity, clean = (random(1, 32, 8, 12, seed=seed) for seed in range(3))
    step = guide.Step(velocity=velocity, noisy=noisy, sigma=SIGMAS[2], index=2, num_steps=STEPS)
    if method == "imax":
        expected, kind = corrected(step, clean, generation.Imax()), Imax
    else:
        reference = (noisy - clean) / step.sigma
        expected, kind = hiflow.corrected(step, reference, None, generation.Hiflow()), Hiflow
    patches, velocity = (torch.nn.functional.pixel_unshuffle(one, 2) for one in (noisy, velocity))
    patched = kind(guide=torch.nn.functional.pixel_unshuffle(clean, 2), patch=2)
    found = asked(patched, patches, patches - SIGMAS[2] * velocity, SIGMAS[2])
    found = torch.nn.functional.pixel_shuffle((patches - found) / SIGMAS[2], 2)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def asked(method, noisy, denoised, sigma):
    options = {"transformer_options": {"sample_sigmas": SIGMAS}}
    return method(
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
    native = 0.3 * random(1, 16, 5, 8)
    found = enlarged(native, (10, 16), decode=in_blocks, encode=lambda pixels: pixels)
    eight_bit = (in_blocks(native)[0] * 255).round().byte().numpy()
    expected = Image.fromarray(eight_bit).resize((128, 80), Image.Resampling.BICUBIC)
    assert found.shape == (1, 80, 128, 3)
    assert float((found[0] * 255 - torch.tensor(np.asarray(expected)).float()).abs().max()) < 2


def test_a_video_models_picture_is_its_one_frame():
    native = 0.3 * random(1, 16, 5, 8)
    frames = enlarged(
        native[:, :, None],
        (10, 16),
        decode=lambda latents: in_blocks(latents[:, :, 0])[:, None],
        encode=lambda pixels: pixels,
    )
    flat = enlarged(native, (10, 16), decode=in_blocks, encode=lambda pixels: pixels)
    assert torch.equal(frames, flat)


@pytest.mark.parametrize(
    ("native", "target", "sentence"),
    [((8, 8), (16, 8), "another shape"), ((16, 16), (8, 8), "exchanged"), ((8, 8), (8, 8), "exchanged")],
)
def test_latents_that_are_no_native_and_target_are_refused(native, target, sentence):
    with pytest.raises(ValueError, match=sentence):
        enlarged(torch.zeros(1, 16, *native), target, decode=in_blocks, encode=None)
