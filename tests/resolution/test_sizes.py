import pytest

from urae.resolution import check_size, num_image_tokens, size_scale, snap


def test_token_counts(pipe):
    assert num_image_tokens(pipe, (1024, 1024)) == 4096
    assert num_image_tokens(pipe, (4096, 2048)) == 32768
    assert num_image_tokens(pipe, 512) == 1024


def test_scale_is_the_geometric_mean(pipe):
    assert size_scale(pipe, (256, 64)) == 2.0
    assert size_scale(pipe, (64, 64)) == 1.0


def test_valid_sizes_come_back_as_width_and_height():
    assert check_size((512, 256)) == (512, 256)
    assert check_size([512, 256]) == (512, 256)
    assert check_size(512) == (512, 512)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [((500, 512), "496x512 or 512x512"), ((7, 100), "16x96 or 16x112"), (250, "240x240 or 256x256")],
)
def test_other_sizes_are_refused_with_the_nearest(size, nearest):
    with pytest.raises(ValueError, match=f"is not a multiple of 16: use {nearest}"):
        check_size(size)


@pytest.mark.parametrize("size", [(512,), (512, 512, 3), (0, 512), (-16, 16), (512.0, 512)])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match=r"expected \(width, height\) in pixels"):
        check_size(size)


@pytest.mark.parametrize(
    ("asked", "size"),
    [((500, 512), (496, 512)), ((504, 7), (512, 16)), ((24, 40), (32, 48)), ((64, 32), (64, 32))],
)
def test_snap_takes_the_nearest(asked, size):
    assert snap(asked).size == size
    assert snap(asked).asked == asked


def test_snap_says_what_it_changed():
    assert snap((500, 300), multiple=32).change == "500x300 became 512x288"
    assert snap((512, 288), multiple=32).change == ""


def test_snap_to_half_tokens_is_refused():
    with pytest.raises(ValueError, match="multiple is 8: expected a positive multiple of 16"):
        snap((100, 100), multiple=8)
