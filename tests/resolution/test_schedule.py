"""Shifts: the numbers in the documentation, and the warning."""

import warnings

import numpy as np
import pytest
from diffusers import FlowMatchHeunDiscreteScheduler

from urae.resolution import (
    ResolutionPolicy,
    dynamic_shift,
    near_noise_share,
    shifted_sigmas,
    warn_dynamic_shift,
)


@pytest.mark.parametrize(
    ("side", "shift"),
    [(256, 1.649), (1024, 3.158), (2048, 25.3), (4096, 103_777)],
    ids=["256", "1K", "2K", "4K"],
)
def test_dynamic_shift_of_flux(pipe, side, shift):
    assert dynamic_shift(pipe, (side, side)) == pytest.approx(shift, rel=1e-3)


@pytest.mark.parametrize("size", [(128, 64), (2048, 2048)])
@pytest.mark.parametrize("policy", [None, ResolutionPolicy(shift=2.5)])
def test_sigmas_are_those_of_the_scheduler(pipe, size, policy):
    from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

    width, height = size
    mu = 0.5 + (width * height / 256 - 256) * 0.65 / 3840
    if policy is None:
        scheduler, shift = pipe.scheduler, dynamic_shift(pipe, size)
    else:
        with policy.on(pipe):
            scheduler, shift = pipe.scheduler, dynamic_shift(pipe, size)
    retrieve_timesteps(scheduler, 28, "cpu", sigmas=np.linspace(1.0, 1 / 28, 28), mu=mu)
    np.testing.assert_allclose(scheduler.sigmas[:-1].numpy(), shifted_sigmas(shift, steps=28), rtol=1e-5)


def test_linear_shifting_uses_mu_itself(pipe):
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, time_shift_type="linear")
    assert dynamic_shift(pipe, (1024, 1024)) == pytest.approx(1.15)


def test_near_noise_share_counts_steps():
    assert near_noise_share(1.0, steps=28) == 1 / 28
    assert near_noise_share(103_777, steps=28) == 1.0
    # sigma > 0.99 where t > 0.99 / (0.99 + 25.3 * 0.01) = 0.797: 6 of 28
    assert near_noise_share(25.3, steps=28) == 6 / 28


def test_a_large_dynamic_shift_is_warned_about_with_the_number(pipe):
    with pytest.warns(
        UserWarning, match=r"shift is 25\.3 at 2048x2048: 21% of 28 steps run at sigma > 0\.99"
    ):
        warn_dynamic_shift(pipe, (2048, 2048))
    with pytest.warns(UserWarning, match=r"shift is 103,777\.0 at 4096x4096: 100% of 20 steps"):
        warn_dynamic_shift(pipe, (4096, 4096), steps=20)


def test_schedulers_that_know_no_dynamic_shift_are_not_warned_about(pipe):
    pipe.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_dynamic_shift(pipe, (4096, 4096))
    assert dynamic_shift(pipe, (4096, 4096)) == 3.0


def test_small_or_static_shifts_are_not_warned_about(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_dynamic_shift(pipe, (1024, 1024))
        with ResolutionPolicy(shift=12.0).on(pipe):
            warn_dynamic_shift(pipe, (4096, 4096))


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps is 0: expected 1 or more"):
        shifted_sigmas(3.0, steps=0)
