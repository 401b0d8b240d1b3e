"""What a cache is: latents and text embeddings of a data set, computed once (`urae.data.caching` makes them).

A cache is a folder: `cache.json` says what it was made with; `entries/` holds of each record its posterior
(mean and std of the normalised latents, so that training can sample afresh at each step) and the embeddings of
each of its captions, a file each; and `records.jsonl`, written last, lists the records: a folder without it is
unfinished. The same files can lie in shards, see `urae.data.shards`.

Each file carries a key, the hash of all it depends on: for latents the image's bytes, the crop, the bucket, the
VAE's weights and type, and how it encoded; for a caption its words and the text encoders' weights and type. A
file with another key is never used: where the same command would make it anew it is made anew, elsewhere it is
a `StaleCache`. It also carries a checksum, so that a damaged file is found and made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from urae.data.compact import restored
from urae.data.image import assign_buckets
from urae.data.record import Record
from urae.data.shards import open_store
from urae.data.store import Store, parsed, part_name
from urae.errors import BadFile, StaleCache
from urae.execution.encoding import Encoding
from urae.families import Posterior, family_of
from urae.resolution import Size

__all__ = [
    "FORMAT",
    "Cache",
    "Entry",
    "Form",
    "Sample",
    "cache_of",
    "header_of",
    "identity_of",
    "open_cache",
]

FORMAT = 2
"""Of the folder; raised when older caches cannot be read."""

CROP = "upright, sRGB, resized by Lanczos to cover, cropped to the middle"
"""What `load_pixels` does: part of the key of latents."""

Form = Literal["full", "small"]
"""How tensors are stored: in the types of the VAE and the text encoders, or see `urae.data.compact`."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What training needs of one record."""

    id: str
    """The record's id."""
    posterior: Posterior
    """Of the normalised latents, (C, H, W), fp32."""
    text: dict[str, Tensor]
    """Embeddings of one of its captions, without a batch dimension."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One record of a cache."""

    record: Record
    bucket: Size
    """Width and height at which it is cached, px."""
    keys: dict[str, str]
    """By part, which is "latents" or a kind of caption: hash of all that the part's contents depend on."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A complete cache, in a folder or in shards."""

    store: Store
    size: int
    """Side of the square of the buckets' area, px."""
    identity: dict[str, str]
    """Hashes of the weights that made it: "latents" and "text"."""
    encoding: Encoding
    """"exact", or "tiled" where the VAE encoded in tiles."""
    form: Form
    """"full", or "small" for 8-bit std and embeddings."""
    entries: tuple[Entry, ...]
    source: str
    """The folder or manifest it was made from."""

    @property
    def path(self) -> str | Path:
        """The folder, or the URL of the shards."""
        return self.store.path

    @property
    def digest(self) -> str:
        """Hash of everything in the cache: two caches with the same digest train alike."""
        return _hash([entry.keys for entry in self.entries])

    def load(self, entry: Entry, caption: str = "detailed") -> Sample:
        """One entry with its caption of this kind, or with the other where the record has only one.

        Raises `BadFile` for a missing or damaged file, `StaleCache` for one that was made from something else.
        """
        kind = caption if caption in entry.keys else next(iter(entry.record.captions))
        latents = restored(self._part(entry, "latents"))
        posterior = Posterior(mean=latents["mean"].to(torch.float32), std=latents["std"].to(torch.float32))
        return Sample(id=entry.record.id, posterior=posterior, text=restored(self._part(entry, kind)))

    def check(self, pipe: Any) -> None:
        """Raise `StaleCache` unless this pipeline's VAE and text encoders made the cache. A pipeline that was
        loaded without text encoders has nothing to compare, and may train on what is cached."""
        for name, identity in identity_of(pipe).items():
            if identity and self.identity[name] != identity:
                module = {"latents": "VAE", "text": "text encoders"}[name]
                raise StaleCache(
                    f"{self.path} was cached with another {module} ({self.identity[name][:12]}, not "
                    f"{identity[:12]}): cache the data again with this pipeline"
                )

    def _part(self, entry: Entry, part: str) -> dict[str, Tensor]:
        name = part_name(entry.record.id, part)
        tensors, key = parsed(self.store.entry(name), f"{name} in {self.path}")
        if key != entry.keys[part]:
            raise StaleCache(
                f"{name} was not made from {entry.record.file} as {self.path} lists it: "
                "delete the cache and make it again"
            )
        return tensors


def open_cache(path: str | Path) -> Cache:
    """The cache in this folder, or in the shards at this URL. Raises `StaleCache` if it is unfinished, `BadFile`
    if it is none."""
    store = open_store(path)
    header = header_of(store)
    try:
        lines = store.text("records.jsonl").splitlines()
    except FileNotFoundError as error:
        raise StaleCache(f"{path} is unfinished: cache the data again, what is done is kept") from error
    return cache_of([Record.from_dict(json.loads(line)) for line in lines], store, header)


def cache_of(records: Sequence[Record], store: Store, header: dict[str, Any]) -> Cache:
    """The cache of these records; header: its other fields."""
    entries = (
        Entry(record=record, bucket=bucket, keys=_keys(record, bucket, header))
        for record, bucket in assign_buckets(records, header["size"])
    )
    return Cache(store=store, entries=tuple(entries), **header)


def identity_of(pipe: Any) -> dict[str, str]:
    """Hashes of what latents ("latents") and embeddings ("text") of this pipeline depend on."""
    family = family_of(pipe)
    return {"latents": family.latents.identity(pipe), "text": family.text.identity(pipe)}


def _keys(record: Record, bucket: Size, header: dict[str, Any]) -> dict[str, str]:
    identity, form = header["identity"], header["form"]
    latents = [record.id, CROP, bucket, identity["latents"], header["encoding"]]
    texts = {
        kind: _hash([FORMAT, caption, identity["text"], form]) for kind, caption in record.captions.items()
    }
    return {"latents": _hash([FORMAT, *latents, form]), **texts}


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def header_of(store: Store) -> dict[str, Any]:
    """What `cache.json` says, in the names of the fields of `Cache`."""
    try:
        header = json.loads(store.text("cache.json"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{store.path} is not a cache ({error})") from error
    if header.pop("format", None) != FORMAT:
        raise StaleCache(f"{store.path} was written by another version of urae: cache the data again")
    return header
