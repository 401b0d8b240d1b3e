"""Data: records and manifests, formats, the cache of latents and embeddings, the order of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.data.cache_format import Cache, Entry, Sample, open_cache
    from urae.data.caching import CacheReport, cache, make_cache
    from urae.data.checking import check_data
    from urae.data.dataset import CachedDataset, Source, hold_out
    from urae.data.formats import convert, list_images
    from urae.data.manifest import read_manifest, read_records, scan_folder, write_manifest
    from urae.data.record import CAPTION_KINDS, Record
    from urae.data.shards import write_shards
    from urae.data.sources import cached, cached_dataset, num_images, split_mix

__getattr__, __dir__, __all__ = lazily(__name__)
