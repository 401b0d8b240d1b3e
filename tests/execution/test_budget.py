"""Bytes: those that are reckoned with are those that are alive."""

import pytest
import torch

from autoencoders import LiveBytes, flux_vae
from urae.execution import free_bytes, vae_run
from urae.execution.budget import USABLE, decoding_bytes, encoding_bytes, fits

FLUX = (4096, 4096)
WAYS = ("whole", "strips", "tiles")


@pytest.mark.parametrize(
    ("way", "size"), [("whole", (128, 128)), ("strips", (32, 512)), ("tiles", (192, 128))]
)
def test_what_encoding_needs_is_what_is_alive(weightless, way, size):
    vae, fake = weightless
    with fake, torch.no_grad():
        pixels = torch.empty(1, 3, *reversed(size))
        with LiveBytes() as live, vae_run(vae, way):
            vae.encode(pixels)
    assert live.peak <= encoding_bytes(vae, size, way) <= 1.3 * live.peak


@pytest.mark.parametrize(
    ("way", "size"), [("whole", (128, 128)), ("strips", (128, 1024)), ("tiles", (256, 192))]
)
def test_what_decoding_needs_is_what_is_alive(weightless, way, size):
    vae, fake = weightless
    with fake, torch.no_grad():
        latents = torch.empty(1, 16, size[1] // 8, size[0] // 8)
        with LiveBytes() as live, vae_run(vae, way):
            vae.decode(latents)
    assert live.peak <= decoding_bytes(vae, size, way) <= 1.35 * live.peak


def test_4096_px_are_decoded_exactly_on_16_gb_and_encoded_on_24():
    fp32, bf16 = flux_vae(torch.float32), flux_vae(torch.bfloat16)
    decoding, encoding = (
        [reckoned(bf16, FLUX, way) / 1e9 for way in WAYS] for reckoned in (decoding_bytes, encoding_bytes)
    )
    assert decoding == pytest.approx([26.3, 12.3, 2.1], abs=0.05)
    assert decoding[1] < USABLE * 16 < decoding[0]
    assert encoding == pytest.approx([21.8, 9.4, 1.7], abs=0.05)
    assert encoding_bytes(fp32, FLUX, "whole") > 24e9
    assert encoding_bytes(fp32, FLUX, "strips") < USABLE * 24e9


def test_a_sixth_stays_free():
    assert fits(85, 100)
    assert not fits(86, 100)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_torch_keeps_of_a_tensor_that_is_gone_is_free():
    before = free_bytes(torch.device("cuda"))
    gone = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    assert free_bytes(torch.device("cuda")) <= before - 2**30
    del gone
    assert free_bytes(torch.device("cuda")) >= before - 2**25
