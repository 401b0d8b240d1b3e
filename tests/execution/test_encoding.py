import numpy as np
import pytest
import torch

from autoencoders import flux_vae
from tiny import with_text_encoders, write_images
from urae import mini
from urae.data import cache, open_cache
from urae.execution import choose_encoding, encoding_way, vae_run
from urae.execution.budget import USABLE, encoding_bytes
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
        with vae_run(vae, "tiles"):
            tiles = vae.encode(pixels).latent_dist.mean
    difference = ((tiles - whole).square().mean() / whole.var()).sqrt().item()
    assert difference == pytest.approx(0.066, abs=0.02)


def test_4096_px_are_encoded_exactly_within_24_gb():
    fp32, bf16 = flux_vae(torch.float32), flux_vae(torch.bfloat16)
    assert choose_encoding(fp32, [FLUX], asked="auto", free=24e9) == "exact"
    assert encoding_way(fp32, FLUX, "exact", free=24e9) == "strips"
    assert encoding_way(fp32, (2048, 2048), "exact", free=24e9) == "whole"
    assert encoding_way(bf16, FLUX, "exact", free=24e9) == "strips"
    assert encoding_way(bf16, FLUX, "exact", free=32e9) == "whole"
    assert encoding_way(bf16, (2048, 2048), "exact", free=8e9) == "whole"
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
        memory=encoding_bytes(pipe.vae, (128, 128), "strips") / USABLE,
    )
    assert strips.digest == whole.digest
    for first, second in zip(whole.entries, strips.entries, strict=True):
        one, two = (made.load(entry).posterior.mean for made, entry in ((whole, first), (strips, second)))
        torch.testing.assert_close(two, one, atol=1e-5, rtol=0)
