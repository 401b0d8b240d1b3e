import pytest

from urae.resolution import buckets, nearest_bucket


@pytest.mark.parametrize(
    ("side", "multiple", "tolerance"), [(256, 16, 0.05), (512, 32, 0.05), (2048, 32, 0.02)]
)
def test_buckets_keep_area_multiple_and_ratio(side, multiple, tolerance):
    sizes = buckets(side, multiple=multiple, tolerance=tolerance, max_ratio=2.0)
    assert (side, side) in sizes
    for width, height in sizes:
        assert width % multiple == height % multiple == 0
        assert abs(width * height - side * side) <= tolerance * side * side
        assert max(width, height) <= 2 * min(width, height)


def test_buckets_are_sorted_unique_and_hold_their_mirror_images():
    sizes = buckets(512)
    ratios = [width / height for width, height in sizes]
    assert ratios == sorted(set(ratios))
    assert {(height, width) for width, height in sizes} == set(sizes)


def test_no_size_within_the_tolerance_is_missing():
    side, multiple, tolerance = 256, 16, 0.05
    grid = range(multiple, 4 * side, multiple)
    dense = [
        (w, h)
        for w in grid
        for h in grid
        if abs(w * h / side**2 - 1) <= tolerance and max(w / h, h / w) <= 2.0
    ]
    assert {size[1] for size in buckets(side) if size[0] >= size[1]} == {h for w, h in dense if w >= h}


def test_one_bucket_at_ratio_one():
    assert buckets(128, max_ratio=1.0, tolerance=0.0) == [(128, 128)]


def test_nearest_bucket_goes_by_shape_not_by_area():
    sizes = [(256, 256), (384, 176), (176, 384)]
    assert nearest_bucket((4000, 3900), sizes) == (256, 256)
    assert nearest_bucket((6000, 3000), sizes) == (384, 176)
    assert nearest_bucket((30, 90), sizes) == (176, 384)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 0}, "side is 0"),
        ({"side": 250}, "side is 250: expected a positive multiple of 16"),
        ({"side": 256, "multiple": 24}, "multiple is 24"),
        ({"side": 256, "tolerance": 1.0}, "tolerance is 1.0"),
        ({"side": 256, "max_ratio": 0.5}, "max_ratio is 0.5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        buckets(**settings)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="there are no buckets"):
        nearest_bucket((512, 512), [])
    with pytest.raises(ValueError, match="expected a positive width and height"):
        nearest_bucket((0, 512), [(512, 512)])
