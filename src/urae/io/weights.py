"""Weights: safetensors alone, checked before a tensor is made of them, and written to the same bytes every time.

Other formats can run code. The library checks types, shapes and places. The header is read here too, since of two
tensors of one name the library takes the last in silence.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from urae.errors import BadFile
from urae.io.files import writing
from urae.io.texts import parse_json_object

__all__ = [
    "Header",
    "Stored",
    "Weights",
    "check_finite",
    "parse_weights",
    "read_header",
    "read_weights",
    "write_weights",
]

SUFFIX = ".safetensors"
LONGEST_HEADER = 2**25
"""Bytes; ten thousand tensors take some 2^20."""
MOST_DIMENSIONS = 64

WRITTEN = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of the dtypes that are read, in the order in which the library writes them."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor as the header describes it."""

    dtype: str
    """As the file names it: "F32", "BF16", ..."""
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of its tensors."""

    path: Path
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    """Empty where the file has none."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a file holds."""

    tensors: dict[str, Tensor]
    """In their stored dtype."""
    metadata: dict[str, str]


def read_weights(
    file: Path | str | Header, *, finite: bool = False, only: Collection[str] | None = None
) -> Weights:
    """What is in a file, or in that of a header; of the tensors `only` some if they are named. `BadFile` for what is
    damaged, with `finite` NaN and infinite values too; `ValueError` for a path that is no safetensors file."""
    header = file if isinstance(file, Header) else read_header(file)
    try:
        with safe_open(header.path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in (opened.keys() if only is None else only)}
    except (SafetensorError, OSError, KeyError) as error:
        raise _damaged(header.path, error) from error
    if finite:
        check_finite(tensors, name=header.path)
    return Weights(tensors=tensors, metadata=dict(header.metadata))


def read_header(path: Path | str) -> Header:
    """What a file holds, its tensors unread. Raises as `read_weights` does."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is no plain file: expected a {SUFFIX} file")
    if path.suffix != SUFFIX:
        raise ValueError(f"{path.name} is not a {SUFFIX} file: other formats can run code and are not read")
    try:
        with path.open("rb") as file:
            described = _described(file, path)
        with safe_open(path, framework="pt"):  # which checks it
            return _header(described, path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def parse_weights(data: bytes, *, name: object, finite: bool = False) -> Weights:
    """The contents of a file as `read_weights` gives them, in order of their names. `name` stands for it in a
    `BadFile`."""
    described = _described(io.BytesIO(data), name)
    try:
        tensors = dict(sorted(safetensors.torch.load(data).items()))
    except (SafetensorError, KeyError) as error:
        raise _damaged(name, error) from error
    header = _header(described, name)
    if finite:
        check_finite(tensors, name=name)
    return Weights(tensors=tensors, metadata=dict(header.metadata))


def check_finite(tensors: Mapping[str, Tensor], *, name: object) -> None:
    """Raise `BadFile` for NaN and infinite values."""
    for key, tensor in tensors.items():
        narrow = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 2 else tensor
        if not narrow.isfinite().all():
            raise BadFile(f"{name} holds NaN or infinite values in {key!r}: its training diverged")


def write_weights(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    sync: bool = False,
    make: Callable[[str], Tensor] | None = None,
) -> None:
    """Write a file, complete or not at all; the same contents are the same bytes. Raises `CannotWrite`.

    make: gives each tensor when its turn comes, so that one is in memory at a time; those in `tensors` then only say
    dtype and shape, and may be on the meta device.
    """
    make = make or tensors.__getitem__
    order = {dtype: place for place, dtype in enumerate(WRITTEN)}
    names = sorted(tensors, key=lambda name: (order[tensors[name].dtype], name))
    with writing(path, sync=sync) as temporary, temporary.open("wb") as file:
        file.write(_header_bytes({name: tensors[name] for name in names}, metadata))
        for name in names:
            made = make(name)
            assert (made.dtype, made.shape) == (tensors[name].dtype, tensors[name].shape), name
            whole = made.detach().cpu().contiguous().reshape(-1)
            file.write(whole.view(torch.uint8).numpy().data)


def _header_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    described: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        described[name] = {
            "dtype": WRITTEN[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    padded = text + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded


def _described(file: BinaryIO, name: object) -> dict[str, Any]:
    """What the header says, each name once."""
    length = file.read(8)
    size = int.from_bytes(length, "little")
    if size > LONGEST_HEADER:
        raise _damaged(name, f"its header has {size} bytes")
    text = file.read(size)
    if len(length) < 8 or len(text) < size:
        raise _damaged(name, "it ends before its header does")
    return parse_json_object(text, name=f"the header of {name}")


def _header(described: dict[str, Any], name: object) -> Header:
    """Of a file that the library has opened, and so checked."""
    metadata = described.pop("__metadata__", None) or {}
    tensors = {key: Stored(dtype=one["dtype"], shape=tuple(one["shape"])) for key, one in described.items()}
    for key, one in tensors.items():
        if len(one.shape) > MOST_DIMENSIONS or one.dtype not in WRITTEN.values():
            most = f"at most {MOST_DIMENSIONS} of {', '.join(WRITTEN.values())}"
            raise BadFile(f"{name} holds {key!r}, {one.dtype} of {len(one.shape)} axes: expected {most}")
    return Header(path=Path(str(name)), tensors=tensors, metadata=metadata)


def _damaged(name: object, reason: object) -> BadFile:
    said = re.sub(r"\s+", " ", str(reason))
    return BadFile(f"{name} is not a complete safetensors file ({said}): download, copy or save it again")
