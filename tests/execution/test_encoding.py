import numpy as np
import pytest
import torch

from autoencoders import flux_vae
from tiny import with_text_encoders, write_images
from urae import mini
from urae.data import cache, open_cache
from urae.execution import choose_encoding, encoding_way, vae_run
from urae.execution.budget import USABLE, encoding_bytes
from urae.execution.encoding import FasterWay, encoding_ways
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


def timed(ways, seconds, num=8):
    """The ways of so many images, by the seconds of each way's first, second and later ones."""
    faster, taken = FasterWay(ways), []
    for _ in range(num):
        taken.append(faster.way)
        of_way = seconds[faster.way]
        faster.took(of_way[min(taken.count(faster.way), len(of_way)) - 1])
    return taken


def test_where_both_exact_ways_fit_they_are_timed_and_the_faster_is_kept():
    bf16 = flux_vae(torch.bfloat16)
    both = encoding_ways(bf16, (2048, 2048), "exact", free=24e9)
    assert both == ("whole", "strips")
    assert encoding_ways(bf16, FLUX, "exact", free=24e9) == ("strips",)
    assert encoding_ways(bf16, FLUX, "tiled", free=24e9) == ("tiles",)
    # Each one's first image has kernels to load, so that counts against none of them.
    assert timed(both, {"whole": [9.0, 0.24], "strips": [0.3, 0.22]}) == ["whole"] * 2 + ["strips"] * 6
    assert (
        timed(both, {"whole": [0.4, 0.24], "strips": [0.5, 0.30]})
        == [*both[:1] * 2, *both[1:] * 2] + ["whole"] * 4
    )


def test_a_way_that_is_many_times_slower_is_tried_once():
    both = ("whole", "strips")
    assert (
        timed(both, {"whole": [2.8, 2.4], "strips": [70.0]}) == ["whole", "whole", "strips"] + ["whole"] * 5
    )
    assert timed(("strips",), {"strips": [70.0]}) == ["strips"] * 8


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
