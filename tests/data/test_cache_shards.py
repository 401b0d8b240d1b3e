import io
import json
import tarfile

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from tiny import with_text_encoders, write_images
from urae.data import CachedDataset, Source, cache, cached, open_cache, write_shards
from urae.errors import BadFile, MissingExtra, StaleCache


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def made(pipe, tmp_path):
    folder = write_images(tmp_path / "images", [(64, 64)] * 4 + [(96, 64)] * 2)
    return cache(with_text_encoders(pipe), folder, tmp_path / "cache", size=64)


def samples(opened) -> list[bytes]:
    data = CachedDataset((Source(cache=opened, entries=opened.entries),))
    return [
        sample.posterior.mean.numpy().tobytes() + b"".join(t.numpy().tobytes() for t in sample.text.values())
        for batch in data.stream(2, seed=0, caption_mix=0.5, stop=8)
        for sample in batch
    ]


def test_shards_are_trained_on_as_the_folder_is_to_the_bit(made, memory):
    num = write_shards(made, "memory://bucket/cache", shard_bytes=20_000)
    opened = open_cache("memory://bucket/cache")
    assert num > 2
    assert len([name for name in memory.ls("/bucket/cache", detail=False) if name.endswith(".tar")]) == num
    assert opened.digest == made.digest
    assert opened.entries == made.entries
    assert samples(opened) == samples(made)


def test_shards_are_plain_tar_files_whose_records_stay_together(made, memory):
    write_shards(made, "memory://bucket/cache", shard_bytes=20_000)
    names = []
    for path in sorted(memory.glob("/bucket/cache/*.tar")):
        with tarfile.open(fileobj=io.BytesIO(memory.cat_file(path))) as tar:
            for member in tar.getmembers():
                names.append(member.name)
                assert tar.extractfile(member).read() == made.store.entry(member.name)
    stems = [name.split(".")[0] for name in names]
    assert stems == [entry.record.id for entry in made.entries for _ in range(3)]


def test_only_the_bytes_of_an_entry_are_read(made, memory, monkeypatch):
    write_shards(made, "memory://bucket/cache")
    opened = open_cache("memory://bucket/cache")
    opened.load(opened.entries[0])  # the index is read once
    asked, stock = [], MemoryFileSystem.cat_file

    def counted(self, path, start=None, end=None, **options):
        asked.append((start, end))
        return stock(self, path, start=start, end=end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    entry = opened.entries[3]
    opened.load(entry, "original")
    names = [f"{entry.record.id}.{part}.safetensors" for part in ("latents", "original")]
    assert [end - start for start, end in asked] == [len(made.store.entry(name)) for name in names]


def test_workers_read_shards_on_disk(made, tmp_path):
    url = f"file://{tmp_path}/shards"
    write_shards(made, url, shard_bytes=20_000)
    opened = open_cache(url)
    data = CachedDataset((Source(cache=opened, entries=opened.entries),))
    streams = [data.stream(2, seed=0, caption_mix=0.5, stop=4, num_workers=workers) for workers in (0, 2)]
    for one, two in zip(*(list(stream) for stream in streams), strict=True):
        assert [s.id for s in one] == [s.id for s in two]
        assert all(torch.equal(a.posterior.mean, b.posterior.mean) for a, b in zip(one, two, strict=True))
    assert not list((tmp_path / "shards").glob("*.tmp"))


def test_stopped_writing_goes_on_and_is_no_cache_before(made, memory):
    write_shards(made, "memory://bucket/cache", shard_bytes=20_000)
    memory.rm("/bucket/cache/index.json")
    lost, *kept = sorted(memory.glob("/bucket/cache/*.tar"))
    memory.pipe_file(lost, memory.cat_file(lost)[:-100])
    before = {path: memory.modified(path) for path in kept}
    unfinished = open_cache("memory://bucket/cache")
    with pytest.raises(BadFile, match="has no index"):
        unfinished.load(unfinished.entries[0])
    write_shards(made, "memory://bucket/cache", shard_bytes=20_000)
    assert {path: memory.modified(path) for path in kept} == before
    assert samples(open_cache("memory://bucket/cache")) == samples(made)


def test_a_damaged_shard_is_named(made, memory):
    write_shards(made, "memory://bucket/cache")
    (path,) = memory.glob("/bucket/cache/*.tar")
    data = np.frombuffer(memory.cat_file(path), np.uint8).copy()
    data[700:] ^= 1
    memory.pipe_file(path, data.tobytes())
    opened = open_cache("memory://bucket/cache")
    with pytest.raises(BadFile, match="is damaged"):
        opened.load(opened.entries[0])
    memory.pipe_file(path, data.tobytes()[:1000])
    with pytest.raises(BadFile, match="ends within .*: write the shards again"):
        opened.load(opened.entries[-1])
    memory.rm(path)
    with pytest.raises(BadFile, match=r"\.tar is missing in memory://bucket/cache: write the shards again"):
        opened.load(opened.entries[0])


def test_another_cache_does_not_mix_with_what_is_there(made, memory, pipe, tmp_path):
    write_shards(made, "memory://bucket/cache")
    other = cache(pipe, tmp_path / "images", tmp_path / "other", size=32)
    with pytest.raises(StaleCache, match="holds the shards of another cache"):
        write_shards(other, "memory://bucket/cache")


def test_shards_are_data_like_a_folder(made, memory, pipe, tmp_path):
    write_shards(made, "memory://bucket/cache")
    assert cached(pipe, "memory://bucket/cache", size=64, scenes=tmp_path).digest == made.digest
    with pytest.raises(ValueError, match="was cached at 64 px, asked for 128 px"):
        cached(pipe, "memory://bucket/cache", size=128, scenes=tmp_path)


def test_a_url_without_shards_is_no_cache(memory):
    with pytest.raises(BadFile, match="memory://nowhere is not a cache"):
        open_cache("memory://nowhere")


def test_a_missing_package_is_named():
    with pytest.raises(MissingExtra, match="oci://bucket needs a package: .*ocifs"):
        open_cache("oci://bucket")


@pytest.mark.parametrize(
    "place", [["x.tar", 0, 10**15], ["x.tar", -1, 8], ["../x.tar", 0, 8], ["x.tar", 0], "x", [1, 2, 3]]
)
def test_an_index_that_leads_nowhere_is_a_sentence(made, memory, place):
    write_shards(made, "memory://bucket/cache")
    index = json.loads(memory.cat_file("/bucket/cache/index.json"))
    name = next(iter(index["entries"]))
    index["entries"][name] = place
    memory.pipe_file("/bucket/cache/index.json", json.dumps(index).encode())
    opened = open_cache("memory://bucket/cache")
    with pytest.raises(BadFile, match="in the index of memory://bucket/cache"):
        opened.store.entry(name)
