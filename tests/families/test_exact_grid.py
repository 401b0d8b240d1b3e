"""Grid recovery: what bf16 merged comes back, what is no grid stays."""

import pytest
import torch

from urae.families.flux.rotary import exact_grid


def ids(height, width, text=0):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()
    return torch.cat([torch.zeros(text, 3), grid])


@pytest.mark.parametrize("text", [0, 1, 7, 512])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 9), (8, 8), (3, 300), (300, 3), (384, 321), (520, 2)]
)
def test_a_rounded_grid_comes_back(height, width, text):
    exact = ids(height, width, text)
    assert torch.equal(exact_grid(exact.bfloat16()), exact)


def test_rounding_does_lose_positions_above_256():
    exact = ids(384, 321)
    assert len(exact.bfloat16().unique(dim=0)) < len(exact)


def test_a_rounded_grid_beside_fp32_text_ids_comes_back():
    exact = ids(300, 300, text=7)
    mixed = torch.cat([torch.zeros(7, 3), ids(300, 300).bfloat16()])
    assert mixed.dtype == torch.float32
    assert torch.equal(exact_grid(mixed), exact)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x / 2,
        lambda x: x + torch.tensor([0, 0, 1.0]),
        lambda x: x + torch.tensor([0, 40.0, 0]),
        lambda x: x.flip(0),
        lambda x: torch.cat([x, x]),
        lambda x: x[:-1].roll(1, 0),
        lambda x: x[1:],
        lambda x: torch.zeros_like(x),
        lambda x: x[..., [0, 2, 1]],
    ],
    ids=["halved", "right", "down", "flipped", "twice", "rolled", "cut", "zeros", "transposed"],
)
def test_ids_that_are_no_grid_stay(change):
    given = change(ids(300, 310)).bfloat16()
    assert torch.equal(exact_grid(given), given.float())


def test_exact_fractions_above_256_stay():
    given = ids(300, 310) + torch.tensor([0, 0, 0.25])
    given[:, 2][given[:, 2] < 1] = 0
    assert torch.equal(exact_grid(given), given)


def test_the_first_axis_stays():
    given = ids(300, 310) + torch.tensor([1.0, 0, 0])
    assert torch.equal(exact_grid(given.bfloat16()), given)
