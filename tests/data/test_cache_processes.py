"""Two real processes make what one makes; a process killed anywhere is gone on from."""

import pytest
from caching import free_port, killed_at, started

from tiny import with_text_encoders, write_images
from urae.data import cache, open_cache
from urae.errors import StaleCache


@pytest.fixture
def prepared(pipe, tmp_path):
    """A saved pipeline, images, and the files of the cache that one whole run makes of them."""
    pipe = with_text_encoders(pipe)
    pipe.save_pretrained(tmp_path / "pipe")
    images = write_images(tmp_path / "images", [(64, 64)] * 5 + [(96, 64)] * 2)
    return tmp_path / "pipe", images, files(cache(pipe, images, tmp_path / "whole", size=64).path)


def files(cache_folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache_folder / "entries").iterdir()}


@pytest.mark.slow
def test_two_processes_make_the_same_cache_and_shards(prepared, tmp_path):
    pipe, images, whole = prepared
    port = free_port()
    both = [started(pipe, images, tmp_path / "shared", rank, 2, port) for rank in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert files(tmp_path / "shared") == whole
    num_bytes = sum(map(len, whole.values()))
    for rank in range(2):
        assert (tmp_path / "shared" / f"report-{rank}.txt").read_text() == f"7 14 {num_bytes}"
    shards = open_cache(f"file://{tmp_path}/shared-shards")
    assert shards.digest == open_cache(tmp_path / "shared").digest
    assert {name: shards.store.entry(name) for name in whole} == whole


def test_a_killed_run_goes_on_where_it_was(prepared, tmp_path):
    pipe, images, whole = prepared
    out = tmp_path / "broken"
    for num in (3, 16):  # among the captions, among the images
        assert killed_at(started(pipe, images, out), out / "entries", num)
        with pytest.raises(StaleCache, match="unfinished"):
            open_cache(out)
    done = sum(name.endswith(".latents.safetensors") for name in files(out))
    last = started(pipe, images, out)
    last.join()
    assert last.exitcode == 0
    assert files(out) == whole
    assert (out / "report-0.txt").read_text().startswith(f"{7 - done} 0 ")
    assert done >= 1
