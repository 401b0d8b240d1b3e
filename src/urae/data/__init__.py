"""Data: records and manifests, the cache of latents and text embeddings, the order of training."""

from urae.data.cache import Cache, CacheReport, Entry, Sample, cache, make_cache, open_cache
from urae.data.dataset import CachedDataset, Source, hold_out
from urae.data.manifest import read_manifest, read_records, scan_folder, write_manifest
from urae.data.progress import Progress, tracked
from urae.data.record import CAPTION_KINDS, Record
from urae.data.shards import write_shards
from urae.data.sources import cached, cached_dataset

__all__ = [
    "CAPTION_KINDS",
    "Cache",
    "CacheReport",
    "CachedDataset",
    "Entry",
    "Progress",
    "Record",
    "Sample",
    "Source",
    "cache",
    "cached",
    "cached_dataset",
    "hold_out",
    "make_cache",
    "open_cache",
    "read_manifest",
    "read_records",
    "scan_folder",
    "tracked",
    "write_manifest",
    "write_shards",
]
