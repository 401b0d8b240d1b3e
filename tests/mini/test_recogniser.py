import numpy as np
import pytest
import torch
from PIL import Image

from urae.mini import Scene, Thing, render, scene
from urae.mini.recogniser import Seen, recogniser, to_input

HELD_OUT = 1_000_000


@pytest.mark.parametrize(("size", "num"), [(128, 100), (256, 30), (512, 8)])
def test_held_out_truth_is_recognised(size, num):
    scenes = [scene(HELD_OUT + i) for i in range(num)]
    seen = recogniser().look([render(s, size) for s in scenes], [len(s.things) for s in scenes])
    verdicts = [look.agrees(s) for look, s in zip(seen, scenes, strict=True)]
    for key in ("object", "style", "background", "relation"):
        assert np.mean([v[key] for v in verdicts if key in v]) >= 0.98


def test_another_scene_is_not():
    """Told of another scene, the recogniser does not agree: chance is 1 in 60 for the object."""
    scenes = [scene(HELD_OUT + i, pairs=0) for i in range(60)]
    seen = recogniser().look([render(s, 128) for s in scenes], [1] * 60)
    agreed = [look.agrees(s)["object"] for look, s in zip(seen, scenes[1:] + scenes[:1], strict=True)]
    assert np.mean(agreed) < 0.1


def test_the_verdict_needs_every_part():
    owl, key = (Thing(name=n, style="flat", x=x, y=64, size=48) for n, x in (("owl", 30), ("key", 98)))
    truth = Scene(things=(owl, key), background="sky", label="")
    right = Seen(objects=(("key", "flat"), ("owl", "flat")), places=((4, 6), (4, 1)), background="sky")
    assert right.agrees(truth) == {"object": True, "style": True, "background": True, "relation": True}
    swapped = Seen(objects=right.objects, places=right.places[::-1], background="sky")
    assert swapped.agrees(truth)["relation"] is False
    glossy = Seen(objects=(("key", "glossy"), ("owl", "flat")), places=right.places, background="sand")
    assert glossy.agrees(truth) == {"object": True, "style": False, "background": False, "relation": True}


def test_input_is_reduced_by_area():
    checks = Image.fromarray(np.indices((128, 128)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    torch.testing.assert_close(to_input(checks), torch.zeros(3, 64, 64), atol=0.01, rtol=0)
