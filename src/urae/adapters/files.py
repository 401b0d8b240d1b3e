"""Safetensors files as adapters are stored in them: tensors, and one metadata key.

All of our metadata is one JSON text under the key "urae". One key, because safetensors does not keep the order of
several, and the same adapter should give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from urae import mini
from urae.adapters.decomposition import tensor_hash
from urae.errors import BadFile
from urae.io import field_of, parse_json_object, read_weights, write_weights

__all__ = ["FORMAT", "MINI", "SHIPPED", "file_named", "read_file", "write_file"]

FORMAT = 1
"""Version of our metadata. Readers refuse newer ones."""

MINI = "mini"
"""What stands before the colon in the names of adapters that ship with the miniature."""
SHIPPED = tuple(f"{MINI}:{name}" for name in mini.ADAPTERS)
"""Their names."""


def file_named(name: str | Path) -> Path:
    """The file that is meant: a path, or one of `SHIPPED`. ValueError for another "mini:..."."""
    before, colon, which = str(name).partition(":")
    return mini.adapter_file(which) if colon and before == MINI else Path(name)


def write_file(path: Path, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> None:
    """Write tensors and our metadata, complete or not at all. `ValueError` for values that are not finite."""
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"{key!r} holds NaN or infinite values as {tensor.dtype}, so that {path.name} is not written: the "
                "training diverged, or a wider type is needed"
            )
    stored = [tensors[key] for key in sorted(tensors)]
    said = {"format": FORMAT, **described, "sha256": tensor_hash(*stored)}
    write_weights(path, tensors, {"urae": json.dumps(said, sort_keys=True)})


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Tensors on the CPU in their stored dtype, our metadata (empty if it is not our file), and all metadata.

    Raises ValueError for a path that is no safetensors file, `BadFile` for one that is damaged.
    """
    weights = read_weights(path, finite=True)
    if not weights.tensors:
        raise BadFile(f"{path.name} holds no tensors")
    return weights.tensors, _our_metadata(path, weights.metadata, weights.tensors), weights.metadata


def _our_metadata(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if "urae" not in metadata:
        return {}
    name = f"the urae metadata of {path.name}"
    described = parse_json_object(metadata["urae"], name=name)
    version = field_of(described, "format", int, name=name)
    if version > FORMAT:
        raise BadFile(f"{path.name} has format {version}, this urae reads up to {FORMAT}: upgrade urae")
    if field_of(described, "sha256", str, name=name) != tensor_hash(
        *(tensors[key] for key in sorted(tensors))
    ):
        raise BadFile(f"{path.name} has other tensors than it was saved with: fetch or save it again")
    return {key: value for key, value in described.items() if key not in ("format", "sha256")}
