import pytest
import torch

from urae.data.small_form import restored, small


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(12, 128, generator=generator)
    text[:, 5] *= 100  # T5 has such channels
    return {
        "mean": torch.randn(16, 8, 6, generator=generator).bfloat16(),
        "std": torch.randn(16, 8, 6, generator=generator).mul(0.5).sub(4).exp().bfloat16(),
        "prompt_embeds": text.bfloat16(),
        "pooled_prompt_embeds": torch.randn(24, generator=generator).bfloat16(),
    }


def test_what_is_small_comes_back_nearly(tensors):
    found = restored(small(tensors))
    assert found.keys() == tensors.keys()
    assert torch.equal(found["mean"], tensors["mean"])
    std = tensors["std"].float()
    # Half a step of the logarithm's range in 255.
    steps = std.log().amax(dim=(1, 2)) - std.log().amin(dim=(1, 2))
    assert ((found["std"] / std).log().abs().amax(dim=(1, 2)) <= 0.501 * steps / 255).all()
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        blocks = tensors[name].float().unflatten(-1, (-1, 8 if name.startswith("pooled") else 64))
        errors = (found[name] - tensors[name].float()).view_as(blocks).abs()
        assert (errors <= 0.51 * blocks.abs().amax(dim=-1, keepdim=True) / 127).all()


def test_a_large_channel_spoils_its_block_alone(tensors):
    error = (restored(small(tensors))["prompt_embeds"] - tensors["prompt_embeds"].float())[:, 64:]
    assert error.norm() < 0.01 * tensors["prompt_embeds"][:, 64:].float().norm()


def test_it_is_small(tensors):
    def num_bytes(held):
        return sum(tensor.nbytes for name, tensor in held.items() if name.partition(".")[0] != "mean")

    assert num_bytes(small(tensors)) < 0.6 * num_bytes(tensors)


def test_zeros_and_equal_values_survive():
    found = restored(small({"std": torch.full((2, 3, 3), 0.25), "x": torch.zeros(4, 64)}))
    torch.testing.assert_close(found["std"], torch.full((2, 3, 3), 0.25))
    assert torch.equal(found["x"], torch.zeros(4, 64))


def test_the_full_form_passes_through(tensors):
    assert restored(tensors) == tensors
