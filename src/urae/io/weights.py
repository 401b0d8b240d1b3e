"""Weights: safetensors alone, checked before a tensor is made of them, and written to the same bytes every time.

Other formats can run code. The header is read here too, since the library takes the last of two tensors of one name in
silence, and says of the others what is wrong but not in which file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from urae.errors import BadFile
from urae.io.files import writing
from urae.io.texts import field_of, parse_json_object, typed

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

BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "C64": 64} | {
    f"{kind}{bits}": bits for bits in (16, 32, 64) for kind in "IUF"
}
BITS |= {"BF16": 16, "I8": 8, "U8": 8, "BOOL": 8} | dict.fromkeys(
    ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8
)
"""Size of a value by the dtype's name in the file."""

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
"""Names of dtypes, in the order in which the library writes them."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor as the header describes it."""

    dtype: str
    """As the file names it: "F32", "BF16", ..."""
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the end of the header."""
    end: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of its tensors."""

    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    """Empty where the file has none."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a file holds."""

    tensors: dict[str, Tensor]
    """In their stored dtype."""
    metadata: dict[str, str]


def read_weights(path: Path | str, *, device: str = "cpu", finite: bool = False) -> Weights:
    """Everything in a file; with `finite`, NaN and infinite values are a `BadFile`, as all that is damaged.
    `ValueError` for a path that is no safetensors file."""
    path = Path(path)
    header = read_header(path)
    try:
        with safe_open(path, framework="pt", device=device) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError) as error:
        raise _damaged(path, error) from error
    if finite:
        check_finite(tensors, name=path)
    return Weights(tensors=tensors, metadata=dict(header.metadata))


def read_header(path: Path | str) -> Header:
    """What a file holds, its tensors unread. Raises as `read_weights` does."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected the path of a {SUFFIX} file")
    if path.suffix != SUFFIX:
        raise ValueError(f"{path.name} is not a {SUFFIX} file: other formats can run code and are not read")
    try:
        with path.open("rb") as file:
            return _header(file, os.fstat(file.fileno()).st_size, path)
    except OSError as error:
        raise _damaged(path, error) from error


def parse_weights(data: bytes, *, name: object, finite: bool = False) -> Weights:
    """The contents of a file as `read_weights` gives them, in order of their names. `name` stands for it in a
    `BadFile`."""
    header = _header(_Bytes(data), len(data), name)
    try:
        tensors = dict(sorted(safetensors.torch.load(data).items()))
    except (SafetensorError, KeyError) as error:
        raise _damaged(name, error) from error
    if finite:
        check_finite(tensors, name=name)
    return Weights(tensors=tensors, metadata=dict(header.metadata))


def check_finite(tensors: Mapping[str, Tensor], *, name: object) -> None:
    """Raise `BadFile` for NaN and infinite values."""
    for key, tensor in tensors.items():
        inexact = tensor.is_floating_point() or tensor.is_complex()
        narrow = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 2 else tensor
        if inexact and not narrow.isfinite().all():
            raise BadFile(
                f"{name} holds NaN or infinite values in {key!r}: the training that wrote it diverged"
            )


def write_weights(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, sync: bool = False
) -> None:
    """Write a file, complete or not at all; the same contents are the same bytes. Raises `CannotWrite`."""
    order = {dtype: place for place, dtype in enumerate(WRITTEN)}
    names = sorted(tensors, key=lambda name: (order[tensors[name].dtype], name))
    with writing(path, sync=sync) as temporary, temporary.open("wb") as file:
        file.write(_header_bytes({name: tensors[name] for name in names}, metadata))
        for name in names:
            whole = tensors[name].detach().cpu().contiguous().reshape(-1)
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


# --- the header --------------------------------------------------------------------------------------------------


class _Bytes:
    """Bytes that are read like a file, not copied."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def read(self, length: int) -> bytes:
        self.place += length
        return self.data[self.place - length : self.place]


def _header(file: BinaryIO | _Bytes, length: int, name: object) -> Header:
    """Read and check a header; `length`: of the file in bytes."""
    size = int.from_bytes(file.read(8), "little")
    if length < 8 or size > length - 8:
        raise _damaged(name, "it ends before its header does")
    if size > LONGEST_HEADER:
        raise _damaged(name, f"its header has {size} bytes")
    described = parse_json_object(file.read(size), name=f"the header of {name}")
    metadata = typed(described.pop("__metadata__", {}), dict, name=f"the metadata of {name}")
    for key in metadata:
        field_of(metadata, key, str, name=f"the metadata of {name}")
    tensors = {key: _stored(value, f"{key!r} in {name}") for key, value in described.items()}
    _check_order(tensors, length - 8 - size, name)
    return Header(tensors=tensors, metadata=metadata)


def _stored(value: Any, name: str) -> Stored:
    values = typed(value, dict, name=name)
    dtype = field_of(values, "dtype", str, name=name)
    shape, offsets = (field_of(values, key, list, name=name) for key in ("shape", "data_offsets"))
    if dtype not in BITS:
        raise BadFile(f"{name} has the unknown dtype {dtype!r}")
    sizes = [typed(size, int, name=f"the shape of {name}") for size in shape]
    places = [typed(place, int, name=f"the place of {name}") for place in offsets]
    if len(sizes) > MOST_DIMENSIONS or min([*sizes, *places], default=0) < 0 or len(places) != 2:
        raise BadFile(f"{name} has a shape or place that no tensor has")
    if math.prod(sizes) * BITS[dtype] != 8 * (places[1] - places[0]):
        raise BadFile(f"{name} has {places[1] - places[0]} bytes, which do not fit its shape {sizes}")
    return Stored(dtype=dtype, shape=tuple(sizes), start=places[0], end=places[1])


def _check_order(tensors: Mapping[str, Stored], length: int, name: object) -> None:
    """Every byte belongs to one tensor: nothing hides between them, none reads another's."""
    end = 0
    for one in sorted(tensors.values(), key=lambda one: (one.start, one.end)):
        if one.start != end:
            raise _damaged(name, "its tensors overlap or leave gaps")
        end = one.end
    if end != length:
        raise _damaged(name, f"{length} bytes follow its header, {end} are described")


def _damaged(name: object, reason: object) -> BadFile:
    said = re.sub(r"\s+", " ", str(reason))
    return BadFile(f"{name} is no whole safetensors file ({said}): download, copy or save it again")
