import json

import numpy as np
import pytest
from PIL import Image

from urae.mini import Damage, clean, real, render, scene, write_dataset
from urae.mini.world import Scene

NONE = {"wrong_caption": 0.0, "blur": 0.0, "jpeg": 0.0, "watermark": 0.0}


def test_clean_pictures_are_the_truth():
    picture = clean(3, 256)
    assert picture.scene == scene(3)
    assert picture.caption == scene(3).caption()
    assert picture.damages == ()
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(render(scene(3), 256)))


def test_real_pictures_are_damaged_at_the_given_rates():
    rates = {"wrong_caption": 0.3, "blur": 0.5, "jpeg": 0.1, "watermark": 0.7}
    pictures = [real(i, 16, Damage(**rates)) for i in range(600)]
    for name, rate in rates.items():
        share = np.mean([name in p.damages for p in pictures])
        assert abs(share - rate) < 3.5 * np.sqrt(rate * (1 - rate) / 600)


@pytest.mark.parametrize("name", ["blur", "jpeg", "watermark"])
def test_each_damage_changes_the_image_and_not_the_caption(name):
    picture = real(5, 128, Damage(**NONE | {name: 1.0}))
    truth = np.asarray(render(scene(5), 128), dtype=float)
    assert picture.damages == (name,)
    assert np.abs(np.asarray(picture.image, dtype=float) - truth).mean() > 0.5
    assert picture.caption == scene(5).caption()


def test_a_wrong_caption_names_other_objects_and_leaves_the_image():
    for seed in range(30):
        picture = real(seed, 32, Damage(**NONE | {"wrong_caption": 1.0}))
        np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(render(scene(seed), 32)))
        assert picture.caption != scene(seed).caption()
        assert picture.caption.split(" on a ")[1] == scene(seed).caption().split(" on a ")[1]
        assert not {t.name for t in picture.scene.things} & set(picture.caption.split())


def test_damage_is_deterministic():
    first, second = real(9, 64), real(9, 64)
    assert first.damages == second.damages
    np.testing.assert_array_equal(np.asarray(first.image), np.asarray(second.image))


def test_rates_are_checked():
    with pytest.raises(ValueError, match=r"blur .* must lie in \[0, 1\], not 1.5"):
        Damage(blur=1.5)


def test_write_dataset_writes_pairs(tmp_path):
    folder = write_dataset(tmp_path / "set", 3, 64, seed=7)
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{i:06d}.{e}" for i in range(3) for e in ("json", "png")
    ]
    sidecar = json.loads((folder / "000001.json").read_text())
    assert sidecar == {"prompt": scene(8).caption(), "generated_prompt": scene(8).caption(detailed=True)}
    np.testing.assert_array_equal(
        np.asarray(Image.open(folder / "000001.png")), np.asarray(render(scene(8), 64))
    )


def test_no_scene_comes_twice(tmp_path):
    def draw(seed: int) -> Scene:
        return scene(seed // 2)

    folder = write_dataset(tmp_path / "set", 3, 32, draw=draw)
    shown = [Image.open(folder / f"{i:06d}.png").tobytes() for i in range(3)]
    assert shown == [render(scene(i), 32).tobytes() for i in range(3)]
