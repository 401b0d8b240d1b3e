import pytest

from tiny import with_text_encoders, write_images
from urae.data import cached, scan_folder, write_manifest
from urae.data.scenes import render_scenes


@pytest.fixture
def pipe(pipe):
    return with_text_encoders(pipe)


def test_the_same_data_shares_a_cache_and_other_models_and_sizes_have_their_own(pipe, tmp_path):
    folder = write_images(tmp_path / "images", [(128, 128)] * 2)
    first = cached(pipe, str(folder), size=64, scenes=tmp_path)
    assert cached(pipe, str(folder), size=64, scenes=tmp_path).path == first.path
    assert cached(pipe, str(folder), size=128, scenes=tmp_path).path != first.path
    pipe.vae.encoder.conv_in.weight.data[0] += 0.1
    assert cached(pipe, str(folder), size=64, scenes=tmp_path).path != first.path
    assert len(list((folder / "cache").iterdir())) == 3


def test_a_manifest_is_cached_beside_itself(pipe, tmp_path):
    folder = write_images(tmp_path, [(64, 64)] * 3)
    write_manifest(scan_folder(folder)[:2], tmp_path / "two.jsonl")
    made = cached(pipe, str(tmp_path / "two.jsonl"), size=64, scenes=tmp_path)
    assert made.path.parent == tmp_path / "two.cache"
    assert len(made.entries) == 2


def test_scenes_are_rendered_once_and_alike(tmp_path):
    folder = render_scenes("mini:clean:2", tmp_path / "a", size=64)
    records = scan_folder(folder)
    assert [record.size for record in records] == [(64, 64)] * 2
    assert records == scan_folder(render_scenes("mini:clean:2", tmp_path / "b", size=64))
    (folder / "000000.png").write_bytes((folder / "000001.png").read_bytes())
    render_scenes("mini:clean:2", tmp_path / "a", size=64)
    assert (folder / "000000.png").read_bytes() == (folder / "000001.png").read_bytes()


def test_other_scenes_have_another_folder(tmp_path):
    sources = [("mini:clean:2", 64), ("mini:clean:3", 64), ("mini:real:2", 64), ("mini:clean:2", 32)]
    folders = [render_scenes(source, tmp_path, size=size) for source, size in sources]
    assert len(set(folders)) == 4
    assert len(scan_folder(folders[1])) == 3


def test_real_scenes_are_damaged(tmp_path):
    clean, real = (
        scan_folder(render_scenes(f"mini:{kind}:8", tmp_path, size=64)) for kind in ("clean", "real")
    )
    assert {record.id for record in clean} != {record.id for record in real}


def test_an_interrupted_rendering_is_begun_anew(tmp_path):
    (tmp_path / ".unfinished-clean-1-64px").mkdir()
    (tmp_path / ".unfinished-clean-1-64px" / "half.png").write_bytes(b"")
    assert len(scan_folder(render_scenes("mini:clean:1", tmp_path, size=64))) == 1


@pytest.mark.parametrize("source", ["mini:", "mini:clean", "mini:clean:0", "mini:dirty:8", "mini:clean:8x"])
def test_a_name_of_no_scenes_is_answered_with_one(tmp_path, source):
    with pytest.raises(ValueError, match="names no scenes: expected mini:clean:N or mini:real:N"):
        render_scenes(source, tmp_path / "scenes", size=64)


def test_a_folder_and_its_manifest_have_one_cache(pipe, tmp_path):
    folder = write_images(tmp_path / "a", [(64, 64)] * 2)
    write_manifest(scan_folder(folder), folder / "manifest.jsonl")
    first = cached(pipe, str(folder), size=64, scenes=tmp_path)
    assert cached(pipe, str(folder / "manifest.jsonl"), size=64, scenes=tmp_path).path == first.path
    assert first.path.parent == folder / "manifest.cache"


def test_a_cache_of_a_folder_is_found_when_it_has_a_manifest(pipe, tmp_path):
    """Which it gets by captioning; and where an earlier version put it."""
    folder = write_images(tmp_path / "a", [(64, 64)] * 2)
    first = cached(pipe, str(folder), size=64, scenes=tmp_path)
    write_manifest(scan_folder(folder), folder / "manifest.jsonl")
    for source in (folder, folder / "manifest.jsonl"):
        assert cached(pipe, str(source), size=64, scenes=tmp_path).path == first.path
