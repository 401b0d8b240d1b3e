"""The corrected velocity inside a stock pipeline, and the low-pass."""

import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler
from latents import SIZE, draw

from urae.generation.guide import low_pass, velocity_corrected
from urae.resolution import ResolutionPolicy


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (2, 14)])
def test_low_pass_is_the_mean_of_each_block(level, offset, shape):
    values = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(values)
    block = 2**level
    for y in range(shape[0]):
        for x in range(shape[1]):
            rows = [i for i in range(shape[0]) if (i + offset) // block == (y + offset) // block]
            columns = [i for i in range(shape[1]) if (i + offset) // block == (x + offset) // block]
            expected[..., y, x] = values[..., rows, :][..., columns].mean(dim=(-2, -1))
    ours = low_pass(values, level=level, offset=offset)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(low_pass(ours, level=level, offset=offset), ours)


def test_no_correction_is_the_stock_pipeline(pipe, embeds):
    expected = draw(pipe, embeds)
    with velocity_corrected(pipe, lambda step: step.velocity, size=SIZE):
        assert torch.equal(draw(pipe, embeds), expected)


def test_a_correction_sees_each_step_as_the_loop_does(pipe, embeds):
    seen = []

    def correction(step):
        seen.append(step)
        return 0.5 * step.velocity

    with ResolutionPolicy(shift=2.0).on(pipe), velocity_corrected(pipe, correction, size=SIZE):
        images = draw(pipe, embeds, num=2)
    assert [(step.index, step.num_steps) for step in seen] == [(0, 3), (1, 3), (2, 3)]
    sigmas = [step.sigma.item() for step in seen]
    assert sigmas == pytest.approx([1.0, 0.8, 0.5])  # 2u / (1 + u) for u = 1, 2/3, 1/3
    for step, after, sigma, below in zip(seen, [*seen[1:], None], sigmas, [*sigmas[1:], 0.0], strict=True):
        assert step.velocity.shape == step.noisy.shape == (2, 16, 8, 12)
        moved = step.noisy + (below - sigma) * 0.5 * step.velocity
        expected = pipe._unpack_latents(images, SIZE[1], SIZE[0], 8) if after is None else after.noisy
        torch.testing.assert_close(expected, moved)


def test_in_bf16_the_correction_is_made_in_fp32(pipe, embeds):
    pipe.to(torch.bfloat16)
    seen = []

    def correction(step):
        assert step.velocity.dtype == step.noisy.dtype == torch.float32
        seen.append(step.noisy)
        return step.noisy / step.sigma  # leads to zero, which bf16 holds

    with velocity_corrected(pipe, correction, size=SIZE):
        images = draw(pipe, embeds, num=2)
    assert images.dtype == torch.bfloat16
    assert images.abs().max() < 0.01 * seen[0].abs().max()


def test_the_scheduler_is_back_afterwards_and_policies_nest(pipe, embeds):
    scheduler = pipe.scheduler
    before = draw(pipe, embeds)
    state = str(vars(scheduler))
    with velocity_corrected(pipe, lambda step: step.velocity, size=SIZE) as guided:
        with ResolutionPolicy(shift=5.0).on(pipe):
            assert pipe.scheduler.config.shift == 5.0
        assert pipe.scheduler is guided
        draw(pipe, embeds)
    with pytest.raises(KeyError), velocity_corrected(pipe, lambda step: step.velocity, size=SIZE):
        raise KeyError
    assert pipe.scheduler is scheduler
    assert str(vars(scheduler)) == state
    assert torch.equal(draw(pipe, embeds), before)


def test_other_schedulers_are_refused(pipe):
    pipe.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    with (
        pytest.raises(ValueError, match="FlowMatchHeunDiscreteScheduler takes other steps than Euler's"),
        velocity_corrected(pipe, lambda step: step.velocity, size=SIZE),
    ):
        pass
