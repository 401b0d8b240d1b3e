import numpy as np
import pytest
import torch

from autoencoders import LiveBytes, flux_vae, vae_of
from tiny import with_text_encoders, write_images
from urae import mini
from urae.data import cache, open_cache
from urae.execution.encoding import USABLE, EncodingPlan, choose_encoding, encoding_need, plan_encoding
from urae.mini.pictures import clean

FLUX = (4096, 4096)


def test_tiles_differ_by_a_measured_amount():
    """Tiles have norms and attention of their own. On the miniature's trained VAE, a scene of 256 px in tiles of
    128 px: the latents are off by 7% of their standard deviation."""
    vae = mini.pipeline().vae
    image = torch.from_numpy(np.array(clean(3, 256).image, dtype=np.float32))
    pixels = (image / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        whole = vae.encode(pixels).latent_dist.mean
        with EncodingPlan(way="tiles").on(vae):
            tiles = vae.encode(pixels).latent_dist.mean
    difference = ((tiles - whole).square().mean() / whole.var()).sqrt().item()
    assert difference == pytest.approx(0.066, abs=0.02)


def test_the_vae_is_as_it_was():
    vae = vae_of()
    for way in ("whole", "strips", "tiles"):
        with EncodingPlan(way=way).on(vae):
            pass
        assert not vae.use_tiling
        assert "forward" not in vars(vae.encoder)


@pytest.mark.parametrize(
    ("way", "size"), [("whole", (128, 128)), ("strips", (32, 512)), ("tiles", (192, 128))]
)
def test_the_need_is_what_is_alive(weightless, way, size):
    vae, fake = weightless
    with fake, torch.no_grad():
        pixels = torch.empty(1, 3, *reversed(size))
        with LiveBytes() as live, EncodingPlan(way=way).on(vae):
            vae.encode(pixels)
    needed = encoding_need(vae, size, way)
    assert live.peak <= needed <= 1.3 * live.peak


def test_4096_px_fit_within_24_gb():
    fp32, bf16 = flux_vae(torch.float32), flux_vae(torch.bfloat16)
    needs = [encoding_need(bf16, FLUX, way) / 1e9 for way in ("whole", "strips", "tiles")]
    assert needs == pytest.approx([21.8, 9.4, 1.7], abs=0.05)
    assert encoding_need(fp32, FLUX, "whole") > 24e9
    assert encoding_need(fp32, FLUX, "strips") < USABLE * 24e9
    assert choose_encoding(fp32, [FLUX], asked="auto", free=24e9) == "exact"
    assert plan_encoding(fp32, FLUX, "exact", free=24e9).way == "strips"
    assert plan_encoding(fp32, (2048, 2048), "exact", free=24e9).way == "whole"
    assert plan_encoding(bf16, FLUX, "exact", free=24e9).way == "strips"
    assert plan_encoding(bf16, FLUX, "exact", free=32e9).way == "whole"
    assert plan_encoding(bf16, (2048, 2048), "exact", free=8e9).way == "whole"
    assert choose_encoding(bf16, [FLUX], asked="auto", free=12e9) == "exact"
    assert choose_encoding(bf16, [FLUX], asked="auto", free=10e9) == "tiled"
    assert choose_encoding(fp32, [FLUX], asked="auto", free=16e9) == "tiled"
    assert choose_encoding(fp32, [FLUX], asked="exact", free=16e9) == "exact"


def test_a_cache_keeps_its_encoding_whatever_the_memory(pipe, tmp_path):
    pipe = with_text_encoders(pipe)
    folder = write_images(tmp_path / "images", [(128, 128)] * 2)
    whole = cache(pipe, folder, tmp_path / "whole", size=128)
    # Less than one map, which only tiles of 64 px can do with; then more, which changes nothing any more.
    tiled = cache(pipe, folder, tmp_path / "tiled", size=128, memory=1e6)
    assert (whole.encoding, tiled.encoding) == ("exact", "tiled")
    assert whole.digest != tiled.digest
    assert (
        cache(pipe, folder, tmp_path / "tiled", size=128).encoding == open_cache(tmp_path / "tiled").encoding
    )
    assert open_cache(tmp_path / "tiled").encoding == "tiled"
    # Enough for strips, not for the whole: the same latents up to rounding, under the same keys.
    strips = cache(
        pipe,
        folder,
        tmp_path / "strips",
        size=128,
        memory=encoding_need(pipe.vae, (128, 128), "strips") / USABLE,
    )
    assert strips.digest == whole.digest
    for first, second in zip(whole.entries, strips.entries, strict=True):
        one, two = (made.load(entry).posterior.mean for made, entry in ((whole, first), (strips, second)))
        torch.testing.assert_close(two, one, atol=1e-5, rtol=0)
