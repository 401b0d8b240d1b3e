"""That strips are the whole encoder and the whole decoder."""

import pytest
import torch

from autoencoders import vae_of
from urae import mini
from urae.execution.strips import decode_in_strips, encode_in_strips, vae_run


@pytest.mark.parametrize("rows", [2, 24, 64, 1000])
def test_strips_are_the_whole_encoder(rows):
    torch.manual_seed(0)
    vae, pixels = vae_of().eval(), torch.rand(2, 3, 144, 80) * 2 - 1
    with torch.no_grad():
        whole = vae.encode(pixels).latent_dist
        with vae_run(vae, "strips", rows=rows):
            strips = vae.encode(pixels).latent_dist
    assert (strips.mean - whole.mean).abs().max() <= 1e-5
    assert (strips.std - whole.std).abs().max() <= 1e-5


@pytest.mark.parametrize("height", [24, 200, 272])
def test_a_convolution_sees_strips_of_one_shape(height):
    """At the edges too, and where the rows do not divide the map: a library of convolutions chooses a kernel for each
    shape. An upsampler is asked twice, once for the statistics of what it makes."""
    vae, shapes = vae_of().eval(), {}
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(
                lambda _, given, name=name: shapes.setdefault(name, set()).add(given[0].shape)
            )
    with torch.no_grad(), vae_run(vae, "strips", rows=32):
        vae.decode(vae.encode(torch.zeros(1, 3, height, 32)).latent_dist.mean)
    more = {name: found for name, found in shapes.items() if len(found) > 1}
    assert all("upsamplers" in name for name in more), more
    assert max(len(found) for found in shapes.values()) <= 3


def test_strips_need_the_norms_of_the_whole_image():
    """What the exactness is worth: a strip encoded by itself differs by far more than rounding."""
    torch.manual_seed(0)
    vae, pixels = vae_of().eval(), torch.rand(1, 3, 128, 64).cumsum(dim=2) / 64 - 1
    with torch.no_grad():
        whole, alone = vae.encoder(pixels)[:, :, :8], vae.encoder(pixels[:, :, :64])
        strips = encode_in_strips(vae.encoder, pixels, rows=64)[:, :, :8]
    assert (strips - whole).abs().max() <= 1e-5
    assert (alone - whole).abs().max() > 1e-2


@pytest.mark.parametrize("rows", [1, 7, 24, 64, 1000])
@pytest.mark.parametrize("channels", [(8, 8, 16, 16), (16, 16, 16, 16), (8, 16, 16, 32)])
def test_strips_are_the_whole_decoder(rows, channels):
    torch.manual_seed(0)
    vae, latents = vae_of(channels, layers=2).eval(), torch.randn(2, 16, 18, 10)
    with torch.no_grad():
        whole = vae.decode(latents).sample
        with vae_run(vae, "strips", rows=rows):
            strips = vae.decode(latents).sample
    assert strips.shape == (2, 3, 144, 80)
    assert (strips - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_the_miniature_decodes_in_strips_what_it_decodes_whole_and_tiles_do_not():
    vae, latents = mini.pipeline().vae, torch.randn(1, 16, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, tiles = vae.decode(latents).sample, vae.tiled_decode(latents).sample
        strips = decode_in_strips(vae.decoder, latents, rows=20)
    level = 2 / 255
    assert (strips - whole).abs().max() <= 0.01 * level
    assert (tiles - whole).abs().max() > level


@pytest.mark.thorough
def test_in_bf16_strips_are_off_by_rounding_alone():
    vae, latents = mini.pipeline(torch.bfloat16).vae, torch.randn(1, 16, 16, 16).bfloat16()
    with torch.no_grad():
        exact = mini.pipeline().vae.decode(latents.float()).sample
        whole = vae.decode(latents).sample
        strips = decode_in_strips(vae.decoder, latents, rows=20)
    assert strips.dtype == torch.bfloat16
    assert (strips - exact).square().mean() <= 1.2 * (whole - exact).square().mean()


def test_the_vae_is_as_it_was():
    vae = vae_of()
    for way in ("whole", "strips", "tiles"):
        with vae_run(vae, way):
            assert vae.use_tiling == (way == "tiles")
            assert ("forward" in vars(vae.encoder)) == (way == "strips")
        assert not vae.use_tiling
        assert "forward" not in vars(vae.encoder)


def test_the_vae_is_as_it_was_after_a_failure_too():
    vae = vae_of()
    with pytest.raises(RuntimeError, match="inside"), vae_run(vae, "strips"):
        raise RuntimeError("inside")
    assert "forward" not in {*vars(vae.encoder), *vars(vae.decoder)}
