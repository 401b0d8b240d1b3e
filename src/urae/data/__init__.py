"""Data: records and manifests, the cache of latents and text embeddings, the order of training."""

from urae.data.cache import Cache, Entry, Sample, cache, open_cache
from urae.data.dataset import Dataset, hold_out
from urae.data.manifest import read_manifest, read_records, scan_folder, write_manifest
from urae.data.progress import Progress, tracked
from urae.data.record import CAPTION_KINDS, Record
from urae.data.sources import cached

__all__ = [
    "CAPTION_KINDS",
    "Cache",
    "Dataset",
    "Entry",
    "Progress",
    "Record",
    "Sample",
    "cache",
    "cached",
    "hold_out",
    "open_cache",
    "read_manifest",
    "read_records",
    "scan_folder",
    "tracked",
    "write_manifest",
]
