import pytest

from tiny import with_text_encoders, write_images
from urae.data import cached, cached_dataset, make_cache, open_cache, scan_folder, write_manifest
from urae.data.scenes import render_scenes
from urae.data.sources import cache_folder
from urae.errors import CannotWrite


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
    assert len(list((tmp_path / "images.cache").iterdir())) == 3


def test_a_list_is_cached_beside_its_folder_and_apart_from_the_whole(pipe, tmp_path):
    folder = write_images(tmp_path / "images", [(64, 64)] * 3)
    whole = cached(pipe, str(folder), size=64, scenes=tmp_path)
    write_manifest(scan_folder(folder)[:2], folder / "two.jsonl")
    made = cached(pipe, str(folder / "two.jsonl"), size=64, scenes=tmp_path)
    assert made.path.parent == tmp_path / "images.cache" / "two"
    assert (len(made.entries), len(whole.entries)) == (2, 3)
    assert open_cache(whole.path).digest == whole.digest


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


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """The folder "data/a" of two images with a manifest, in the working folder, with links to it."""
    monkeypatch.chdir(tmp_path)
    folder = write_images(tmp_path / "data" / "a", [(64, 64)] * 2)
    write_manifest(scan_folder(folder), folder / "manifest.jsonl")
    (tmp_path / "data" / "link").symlink_to(folder, target_is_directory=True)
    (folder / "latest.jsonl").symlink_to("manifest.jsonl")
    return folder


NAMES = (
    *("data/a", "data/a/", "./data/a", "data/../data/a", "{here}/data/a", "data/link", "{here}/data/link/"),
    *("data/a/manifest.jsonl", "./data//a/manifest.jsonl", "{here}/data/a/manifest.jsonl"),
    *("data/link/manifest.jsonl", "data/a/latest.jsonl"),
)


def test_one_data_set_has_one_cache_however_it_is_named(pipe, listed, tmp_path):
    before = sorted(listed.rglob("*"))
    first = make_cache(pipe, "data/a", cache_folder(pipe, "data/a", size=64), size=64)
    assert first.num_encoded == 2
    for name in (name.format(here=tmp_path) for name in NAMES):
        place = cache_folder(pipe, name, size=64)
        again = make_cache(pipe, name, place, size=64)
        assert (again.num_encoded, again.num_embedded) == (0, 0), name
        assert cached(pipe, name, size=64, scenes=tmp_path).path == place == first.cache.path, name
    assert sorted(listed.rglob("*")) == before
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["a", "a.cache", "link"]


def test_from_within_the_data_its_cache_is_the_same(pipe, listed, monkeypatch):
    place = cache_folder(pipe, "data/a", size=64).resolve()
    monkeypatch.chdir(listed)
    assert [cache_folder(pipe, name, size=64).resolve() for name in (".", "manifest.jsonl")] == [place] * 2


def test_a_list_that_is_linked_elsewhere_is_a_data_set_of_its_own(pipe, listed, tmp_path):
    """Its files are relative to where it is named, as in a hub's snapshots, whose files are all links."""
    other = write_images(tmp_path / "other", [(64, 64)], seed=1)
    (other / "manifest.jsonl").symlink_to(listed / "manifest.jsonl")
    assert cache_folder(pipe, other, size=64) != cache_folder(pipe, listed, size=64)


@pytest.mark.parametrize("older", ["cache", "manifest.cache"])
def test_a_cache_of_an_earlier_version_is_found_in_the_data(pipe, listed, tmp_path, older):
    first = cached(pipe, "data/a", size=64, scenes=tmp_path)
    (tmp_path / "data" / "a.cache").rename(listed / older)
    found = cached(pipe, "data/a/manifest.jsonl", size=64, scenes=tmp_path)
    assert found.path.parent == listed / older
    assert found.digest == first.digest


def test_a_folder_keeps_its_cache_when_it_gets_a_manifest(pipe, tmp_path):
    """Which captioning writes."""
    folder = write_images(tmp_path / "a", [(64, 64)] * 2)
    first = cached(pipe, str(folder), size=64, scenes=tmp_path)
    write_manifest(scan_folder(folder), folder / "manifest.jsonl")
    assert cached(pipe, str(folder), size=64, scenes=tmp_path).path == first.path


def test_training_takes_the_small_form_where_that_was_made(pipe, listed, tmp_path):
    made = make_cache(
        pipe, "data/a", cache_folder(pipe, "data/a", size=64, form="small"), size=64, form="small"
    )
    assert cached(pipe, "data/a/", size=64, scenes=tmp_path).digest == made.cache.digest


def test_caches_go_where_they_are_asked_for_each_data_set_apart(pipe, tmp_path):
    folders = [write_images(tmp_path / name / "images", [(64, 64)], seed=n) for n, name in enumerate("ab")]
    mix = f"{folders[0]}:0.5,{folders[1]}:0.5"
    made = cached_dataset(pipe, mix, size=64, scenes=tmp_path, folder=str(tmp_path / "big"))
    assert len({source.cache.path for source in made.sources}) == 2
    assert {source.cache.path.parents[1] for source in made.sources} == {tmp_path / "big"}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["images"]
    again = cached_dataset(pipe, mix, size=64, scenes=tmp_path, folder=f"{tmp_path}/big/")
    assert again.digest == made.digest


def test_a_place_for_caches_has_no_effect_on_a_cache(pipe, listed, tmp_path):
    made = cached(pipe, "data/a", size=64, scenes=tmp_path)
    with pytest.raises(ValueError, match="cache=big has no effect on .*, which is cached already"):
        cached_dataset(pipe, str(made.path), size=64, scenes=tmp_path, folder="big")


def test_data_that_is_a_disk_of_its_own_needs_a_place(pipe, tmp_path):
    with pytest.raises(
        ValueError, match="/proc is the root of a disk, .*: name another folder .* cache=FOLDER"
    ):
        cache_folder(pipe, "/proc", size=64)


def test_where_nothing_can_be_written_another_place_is_asked_for(pipe):
    with pytest.raises(CannotWrite, match="name another folder for it, by cache=FOLDER"):
        cache_folder(pipe, "/proc/sys", size=64)
