"""Safetensors files as adapters are stored in them: tensors, one metadata key, and every way they can be broken.

All of our metadata is one JSON text under the key "urae". One key, because safetensors does not keep the order of
several, and the same adapter should give the same bytes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from urae.adapters.decomposition import tensor_hash
from urae.errors import BadFile

__all__ = ["FORMAT", "read_file", "write_file"]

FORMAT = 1
"""Version of our metadata. Readers refuse newer ones."""


def write_file(path: Path, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> None:
    """Write tensors and our metadata to a temporary name beside `path`, then rename."""
    stored = {key: tensors[key].contiguous() for key in sorted(tensors)}
    text = json.dumps(
        {"format": FORMAT, **described, "sha256": tensor_hash(*stored.values())}, sort_keys=True
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        save_file(stored, temporary, metadata={"urae": text})
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Tensors on the CPU in their stored dtype, our metadata (empty if it is not our file), and all metadata.

    Raises ValueError for a path that is no safetensors file, `BadFile` for one that is damaged.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected the path of a .safetensors file")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path.name} is not a .safetensors file: other formats can run code and are not read"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise BadFile(
            f"{path.name} is truncated or no safetensors file ({error}): fetch or save it again"
        ) from error
    _check_values(path, tensors)
    return tensors, _our_metadata(path, metadata, tensors), metadata


def _check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    if not tensors:
        raise BadFile(f"{path.name} holds no tensors")
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise BadFile(
                f"{path.name} holds NaN or infinite values in {key!r}: the training that wrote it diverged"
            )


def _our_metadata(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if "urae" not in metadata:
        return {}
    try:
        described = json.loads(metadata["urae"])
        version, checksum = int(described.pop("format")), described.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFile(f"{path.name} has damaged urae metadata: fetch or save it again") from error
    if version > FORMAT:
        raise BadFile(f"{path.name} has format {version}, this urae reads up to {FORMAT}: upgrade urae")
    if checksum != tensor_hash(*(tensors[key] for key in sorted(tensors))):
        raise BadFile(f"{path.name} has other tensors than it was saved with: fetch or save it again")
    return described
