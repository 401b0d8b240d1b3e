"""One second-pass step of I-Max agrees with the published code."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from urae.generation import Imax
from urae.generation.guide import Step, low_pass
from urae.generation.imax import corrected

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "imax_step.safetensors")


def step():
    return Step(
        velocity=GOLDEN["velocity"],
        noisy=GOLDEN["noisy"],
        sigma=GOLDEN["sigma"][0],
        index=int(GOLDEN["step"]),
        num_steps=int(GOLDEN["num_steps"]),
    )


@pytest.mark.parametrize("level", [1, 2])
def test_low_pass(level):
    ours = low_pass(GOLDEN["velocity"], level=level)
    torch.testing.assert_close(ours, GOLDEN[f"low_pass_level{level}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("schedule", ["cosine_decay", "constant", "cosine_shift"])
def test_corrected_velocity(schedule, level):
    ours = corrected(step(), GOLDEN["guide"], Imax(schedule=schedule, low_pass_level=level))
    # The published code divides by sigma + 1e-6.
    torch.testing.assert_close(ours, GOLDEN[f"{schedule}_level{level}"], rtol=0, atol=2e-5)
