import numpy as np
import pytest

from urae.mini import (
    BACKGROUNDS,
    FAMILIAR,
    OBJECTS,
    RELATIONS,
    STYLES,
    Scene,
    Thing,
    familiar_scene,
    render,
    scene,
)
from urae.mini.model import TEXT_TOKENS, vocabulary


def test_a_scene_is_a_function_of_its_seed():
    assert [scene(i) for i in range(50)] == [scene(i) for i in range(50)]
    assert len({scene(i).caption(detailed=True) for i in range(50)}) > 45


def test_the_world_is_as_large_as_promised():
    assert len(OBJECTS) >= 60
    assert len(STYLES) == 2
    assert len(BACKGROUNDS) == 10
    scenes = [scene(i) for i in range(3000)]
    assert {t.name for s in scenes for t in s.things} == set(OBJECTS)
    assert {s.background for s in scenes} == set(BACKGROUNDS)
    assert {s.relation for s in scenes} == {"", *RELATIONS}
    pairs = np.mean([len(s.things) == 2 for s in scenes])
    assert abs(pairs - 1 / 3) < 0.03  # 3 standard errors


def test_captions_use_only_known_words():
    words = {w for i in range(2000) for w in scene(i).caption(detailed=True).split()}
    assert words <= set(vocabulary())
    assert max(len(scene(i).caption(detailed=True).split()) for i in range(2000)) < TEXT_TOKENS


def test_objects_stay_inside_the_picture():
    for i in range(1000):
        for thing in scene(i).things:
            half = thing.size / 2
            assert half <= thing.x <= 128 - half
            assert half <= thing.y <= 128 - half


@pytest.mark.parametrize("seed", [0, 10, 13])
def test_sizes_show_the_same_scene(seed):
    """Reduced by area, the large renderings agree with the small one up to edges and fine texture."""
    small = np.asarray(render(scene(seed), 128), dtype=float)
    for size in (256, 512):
        large = np.asarray(render(scene(seed), size).reduce(size // 128), dtype=float)
        assert np.abs(large - small).mean() < 4


def test_fine_texture_exists_only_at_large_sizes():
    """Within one pixel of 128 px the 512 px rendering of a bare background varies visibly."""
    bare = Scene(things=(Thing(name="key", style="flat", x=20, y=20, size=16),), background="sand", label="")
    large = np.asarray(render(bare, 512), dtype=float)[256:, 256:]
    blocks = large.reshape(64, 4, 64, 4, 3)
    inside = blocks.std(axis=(1, 3)).mean()
    assert inside > 3


def test_relation_follows_the_places():
    left = Thing(name="key", style="flat", x=30, y=60, size=48)
    right = Thing(name="owl", style="glossy", x=98, y=66, size=48)
    assert Scene(things=(left, right), background="sky", label="").relation == "left of"
    assert Scene(things=(right, left), background="sky", label="").caption() == (
        "a glossy owl right of a flat key on a sky background"
    )


def test_the_object_is_drawn_where_the_scene_says():
    thing = Thing(name="apple", style="flat", x=100, y=30, size=40)
    bare = Scene(
        things=(Thing(name="apple", style="flat", x=8, y=120, size=8),), background="night", label=""
    )
    full = Scene(things=(thing, *bare.things), background="night", label="")
    changed = np.abs(np.asarray(render(full, 256), int) - np.asarray(render(bare, 256), int)).sum(2) > 60
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() / 2 - thing.y) < 4
    assert abs(columns.mean() / 2 - thing.x) < 4
    assert rows.max() / 2 <= thing.y + 20
    assert columns.min() / 2 >= thing.x - 20


def test_familiar_scenes_hold_one_large_familiar_object():
    scenes = [familiar_scene(i) for i in range(400)]
    assert {t.name for s in scenes for t in s.things} == set(FAMILIAR) < set(OBJECTS)
    assert all(len(s.things) == 1 and s.things[0].size >= 72 for s in scenes)
