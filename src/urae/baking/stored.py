"""A transformer's weights where they lie, in a diffusers folder or in one file: described at once, read one at a time.

So a model of 24 GB is looked at, and written anew, in the memory that its largest tensor needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from urae import mini
from urae.errors import BadFile
from urae.families.family import Family
from urae.families.opening import empty_transformer, family_at
from urae.families.registry import family_of
from urae.families.single_file import check_whole, keys_of, parts_of
from urae.io import Header, hub_file, hub_parts, read_header, read_json_object, read_weights

__all__ = ["StoredTransformer", "stored_transformer"]

INDEX = "diffusion_pytorch_model.safetensors.index.json"
WHOLE = "diffusion_pytorch_model.safetensors"
EXACT = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Types in which weights are kept as they were trained. What is stored in others was rounded for a purpose."""


@dataclass(frozen=True, kw_only=True)
class StoredParameter:
    """Where a parameter lies."""

    header: Header
    """Of its file. To read it again for each of a thousand parameters takes longer than to read those."""
    key: str
    name: str
    """The key without its prefix."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredTransformer:
    """Parameters by their names in diffusers."""

    transformer: Any
    """Of the same kind, on the meta device."""
    folder: Path
    """In the diffusers layout, with the other parts of the pipeline."""
    described: Mapping[str, Tensor]
    """Type and shape of each, on the meta device."""
    places: Mapping[str, StoredParameter]

    @property
    def family(self) -> Family:
        return family_of(self.transformer)

    def read(self, name: str) -> Tensor:
        """A parameter, on the CPU, in its stored type."""
        place = self.places[name]
        whole = read_weights(place.header, only=(place.key,)).tensors[place.key]
        return dict(parts_of(place.header.path, place.name, whole, self._shapes, self.family))[name]

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return _shapes(self.transformer)


def stored_transformer(name: str | Path, *, base: str | Path = "", whole: bool) -> StoredTransformer:
    """The transformer of "mini", a folder, a hub id or a .safetensors file with its `base`; `whole` downloads the other
    parts of a repository too. `ValueError` for one whose weights are rounded, `BadFile` for one that is damaged."""
    file = Path(name) if Path(name).suffix == ".safetensors" else None
    if file and not base:
        raise ValueError(
            f"{file} holds a transformer alone: name the model that it was made from, a folder or a hub id, as base"
        )
    if base and not file:
        raise ValueError(
            f"base {str(base)!r} has no effect on {str(name)!r}: only a .safetensors file needs one"
        )
    folder = _folder(str(base or name), weights=file is None, whole=whole)
    transformer, family = empty_transformer(str(folder)), family_at(str(folder))
    shapes = _shapes(transformer)
    places: dict[str, StoredParameter] = {}
    described: dict[str, Tensor] = {}
    for path in [file] if file else _files(folder / "transformer"):
        header = read_header(path)
        for key, short in keys_of(path).items():
            stored = header.tensors[key]
            _check_exact(name, key, stored.dtype)
            tensor = torch.empty(stored.shape, dtype=EXACT[stored.dtype], device="meta")
            for part, value in parts_of(path, short, tensor, shapes, family):
                if part in places:
                    raise BadFile(f"{path} holds {part!r}, which {places[part].header.path} holds too")
                places[part], described[part] = StoredParameter(header=header, key=key, name=short), value
    check_whole(file or folder / "transformer", described, shapes, family)
    return StoredTransformer(transformer=transformer, folder=folder, described=described, places=places)


def _folder(name: str, *, weights: bool, whole: bool) -> Path:
    if name == "mini":
        return Path(mini.WEIGHTS)
    if Path(name).is_dir():
        return Path(name)
    index = read_json_object(hub_file(name, "model_index.json"))
    every = [part for part, kind in index.items() if isinstance(kind, list)]
    return hub_parts(name, every if whole else ["transformer"], weights=weights or whole)


def _files(folder: Path) -> list[Path]:
    """The shards of a transformer, or the one file that it is in."""
    if "quantization_config" in read_json_object(folder / "config.json"):
        raise _rounded(folder.parent, "its configuration")
    if (folder / INDEX).is_file():
        listed = read_json_object(folder / INDEX)
        if not isinstance(listed.get("weight_map"), dict):
            raise BadFile(f"{folder / INDEX} has no weight_map: download or save the model again")
        return [folder / file for file in sorted(set(map(str, listed["weight_map"].values())))]
    if not (folder / WHOLE).is_file():
        raise BadFile(
            f"{folder} has no {WHOLE}: expected the weights of a transformer as diffusers saves them"
        )
    return [folder / WHOLE]


def _check_exact(name: object, key: str, dtype: str) -> None:
    if dtype not in EXACT:
        raise _rounded(name, f"{key} of type {dtype}")


def _rounded(name: object, sign: str) -> ValueError:
    return ValueError(
        f"the weights of {name} are rounded, as {sign} shows, and would lose what is added to them: take the model as "
        "it was published, in bf16, fp16 or fp32, and round the result"
    )


def _shapes(transformer: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in transformer.state_dict().items()}
