"""Opening a model by name: the miniature, a folder in the diffusers layout, a single file, or a repository of the hub.

One rule for every way: only safetensors are read, the family is told by the transformer's class before anything large
is loaded, and a type is chosen by name. A pipeline comes whole, without its transformer's weights (to cache data with),
or as an architecture alone, on the meta device (to plan with).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights

from urae import mini
from urae.errors import BadFile
from urae.families.family import Family
from urae.families.registry import families, family_named, family_of
from urae.families.single_file import fill
from urae.io import hub_file, hub_parts, read_header, read_json_object

__all__ = [
    "DTYPES",
    "Architecture",
    "check_transformer",
    "downloaded",
    "dtype_named",
    "empty_transformer",
    "family_at",
    "from_layout",
    "model_name",
    "open_architecture",
    "open_encoders",
    "open_pipeline",
    "open_transformer",
]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""Number formats by name; "auto" stands for float32 for the miniature and on a machine without CUDA, else
bfloat16."""

HUB_ID = r"\w[\w.-]*/\w[\w.-]*"


def open_pipeline(name: str | Path, *, base: str | Path = "", dtype: str = "auto") -> Any:
    """A stock text-to-image pipeline on the CPU.

    `name` is "mini", a folder in the diffusers layout, a .safetensors file of a transformer (diffusers or
    original layout), or a hub id such as "black-forest-labs/FLUX.1-dev". A single file holds a transformer
    alone: `base`, a folder or hub id, gives its configuration and all other parts.

    Raises ValueError if nothing is found under the name and for a family that is not supported, `BadFile` for a
    folder or file that cannot be read.
    """
    if _is_single_file(name):
        return _from_single_file(Path(name), base, dtype_named(dtype, model=name))
    if base:
        raise ValueError(
            f"base {str(base)!r} has no effect on {str(name)!r}: only a .safetensors file needs one"
        )
    if name == "mini":
        return mini.pipeline(dtype_named(dtype, model=name))
    return _from_family(str(name), dtype_named(dtype, model=name))


def open_encoders(name: str | Path, *, dtype: str = "auto") -> Any:
    """The same pipeline with its transformer on the meta device: its weights would be most of what is loaded, in each
    process that encodes data."""
    if name == "mini":
        return mini.pipeline(dtype_named(dtype, model=name))
    transformer = empty_transformer(str(name))
    return _from_family(str(name), dtype_named(dtype, model=name), transformer=transformer)


def open_transformer(pipe: Any, name: str | Path) -> Any:
    """A frozen transformer of the pipeline's own kind and type, from a folder or hub repository."""
    kind, dtype = type(pipe.transformer), pipe.transformer.dtype
    place = downloaded(str(name), ["transformer"])
    with _found(str(name)):
        transformer = kind.from_pretrained(place, subfolder="transformer", dtype=dtype, use_safetensors=True)
    return transformer.requires_grad_(False)


def check_transformer(name: str | Path, *, like: str | Path) -> None:
    """Raise, before a model is loaded, where `open_transformer` would find none of the kind that the model `like` has.
    What is the hub's is downloaded."""
    expected = family_at(str(mini.WEIGHTS) if like == "mini" else str(like)).pipelines.transformer
    if not Path(name).is_dir() and not re.fullmatch(HUB_ID, str(name)):
        raise ValueError(
            f"there is no transformer {str(name)!r}: expected a folder in the diffusers layout or a hub id"
        )
    found = _config(str(name), "transformer").get("_class_name")
    if found != expected:
        raise ValueError(f"the transformer of {name} is a {found}: expected a {expected}, as {like} has")
    place = downloaded(str(name), ["transformer"]) / "transformer"
    if not any(place.glob("*.safetensors")):
        raise BadFile(f"{place} holds no weights: expected the .safetensors files of a transformer")


def dtype_named(dtype: str, *, model: str | Path = "") -> torch.dtype:
    """A type by its name in `DTYPES`; "auto" is the model's."""
    if dtype == "auto":
        return torch.bfloat16 if model != "mini" and torch.cuda.is_available() else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}: expected one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def model_name(pipe: Any) -> str:
    """What the pipeline was opened as; of a local folder the last part of its path."""
    origin = str(pipe.name_or_path or type(pipe).__name__)
    if origin == str(mini.WEIGHTS):
        return "mini"
    return Path(origin).name if Path(origin).exists() else origin


def from_layout(name: str, kind: Any, dtype: torch.dtype, **parts: Any) -> Any:
    """A pipeline of this class from a folder or a hub repository; `parts` are given instead of loaded."""
    index = _index(name)
    wanted = [part for part, kind in index.items() if isinstance(kind, list) and part not in parts]
    place = downloaded(name, wanted)
    with _found(name):
        pipe = kind.from_pretrained(place, dtype=dtype, use_safetensors=True, **parts)
    if str(place) != name:
        pipe.register_to_config(_name_or_path=name)  # and not its place in the cache
    return pipe


def downloaded(name: str, parts: Sequence[str]) -> Path:
    """The folder of a model, its parts downloaded if it is the hub's."""
    return Path(name) if Path(name).is_dir() else hub_parts(name, parts)


# --- an architecture alone -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Architecture:
    """The parts of a pipeline, without their weights, so that what takes a pipeline to reckon sizes from takes it too.
    Each is its own, as modules are."""

    transformer: Any
    """On the meta device."""
    vae: Any
    """On the meta device."""
    text_tokens: int
    num_encoder_values: int
    """Numbers in the text encoders."""
    config: Mapping[str, Any]
    """The pipeline's own settings."""

    @property
    def components(self) -> dict[str, Any]:
        return {"transformer": self.transformer, "vae": self.vae}

    @property
    def encoder_bytes(self) -> int:
        """Of the text encoders, which come in the type of everything else."""
        return self.num_encoder_values * int(self.vae.dtype.itemsize)

    def __getattr__(self, name: str) -> Any:
        if name in family_of(self.transformer).text.tokenizers:
            return SimpleNamespace(model_max_length=self.text_tokens)
        raise AttributeError(name)


def open_architecture(model: str, *, dtype: torch.dtype) -> Architecture:
    """The architecture of "mini", a folder in the diffusers layout or a hub id, as loaded in `dtype`. Nothing is
    downloaded but configurations of a few kilobytes, and those of published models are known."""
    folder = mini.WEIGHTS if model == "mini" else Path(model)
    if folder.is_dir():
        return _architecture_of_folder(folder, dtype)
    for family in families():
        if model in family.pipelines.published:
            return _built(family, family.pipelines.published[model], dtype)
    family = family_at(model)
    own = {"transformer": _config(model, "transformer"), "pipeline": _index(model)}
    return _built(family, {**_like(family, own["transformer"]), **own}, dtype)


def _like(family: Family, transformer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parts of the published model with this transformer, whose text encoder and VAE a fine-tune has too; of the
    first where there is none."""
    known = list(family.pipelines.published.values())
    same = [parts for parts in known if all(transformer.get(k) == v for k, v in parts["transformer"].items())]
    return (same or known)[0]


def _architecture_of_folder(folder: Path, dtype: torch.dtype) -> Architecture:
    family = family_at(str(folder))
    tokenizer = read_json_object(folder / family.text.tokenizers[-1] / "tokenizer_config.json")
    parts = {
        "transformer": read_json_object(folder / "transformer" / "config.json"),
        "vae": read_json_object(folder / "vae" / "config.json"),
        "pipeline": _index(str(folder)),
        "text_tokens": tokenizer["model_max_length"],
        "encoder_values": sum(
            math.prod(stored.shape)
            for file in sorted(folder.glob("text_encoder*/*.safetensors"))
            for stored in read_header(file).tensors.values()
        ),
    }
    return _built(family, parts, dtype)


def _built(family: Family, parts: Mapping[str, Any], dtype: torch.dtype) -> Architecture:
    with torch.device("meta"), _by_default(dtype):
        return Architecture(
            transformer=_class_of(family.pipelines.transformer).from_config(parts["transformer"]),
            vae=_class_of(parts["vae"]["_class_name"]).from_config(parts["vae"]),
            text_tokens=parts["text_tokens"],
            num_encoder_values=parts["encoder_values"],
            config=parts.get("pipeline", {}),
        )


@contextmanager
def _by_default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# --- finding it ----------------------------------------------------------------------------------------------


def _is_single_file(name: str | Path) -> bool:
    if Path(name).suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise ValueError(f"{name} is a pickle, which can run any code: convert it to .safetensors")
    return Path(name).suffix == ".safetensors"


def _from_family(name: str, dtype: torch.dtype, **parts: Any) -> Any:
    kind = family_at(name).pipelines.pipeline(_index(name))
    return from_layout(name, _class_of(kind), dtype, **parts)


def empty_transformer(name: str) -> Any:
    """The model's transformer on the meta device."""
    kind = _class_of(family_at(name).pipelines.transformer)
    with init_empty_weights():
        return kind.from_config(_config(name, "transformer"))


def _from_single_file(path: Path, base: str | Path, dtype: torch.dtype) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if not base:
        raise ValueError(
            f"{path} holds a transformer alone: name the model that it was made from, a folder or a hub id, as base"
        )
    transformer = empty_transformer(str(base))
    fill(transformer, path, family_at(str(base)), dtype)
    pipe = _from_family(str(base), dtype, transformer=transformer.eval())
    pipe.register_to_config(_name_or_path=str(path))
    return pipe


def family_at(name: str) -> Family:
    """The family of a folder or a hub id, from its index alone."""
    index = _index(name)
    if not isinstance(index.get("transformer"), list | tuple):
        raise BadFile(
            f"{name} holds a {index.get('_class_name')}, which has no transformer: expected a pipeline of "
            f"{', '.join(family.name for family in families())}"
        )
    return family_named(index["transformer"][1])


def _index(name: str) -> dict[str, Any]:
    if Path(name).is_dir():
        if not (Path(name) / "model_index.json").is_file():
            raise BadFile(
                f"{name} has no model_index.json: expected a pipeline's folder in the diffusers layout"
            )
        return read_json_object(Path(name) / "model_index.json")
    if not re.fullmatch(HUB_ID, name):
        raise ValueError(
            f"there is no model {name!r}: expected mini, a folder in the diffusers layout, a .safetensors file, "
            "or a hub id such as black-forest-labs/FLUX.1-dev"
        )
    return read_json_object(hub_file(name, "model_index.json"))


def _config(name: str, part: str) -> dict[str, Any]:
    if Path(name).is_dir():
        file = Path(name) / part / "config.json"
        if not file.is_file():
            raise BadFile(f"{name} has no {part}/config.json: expected a folder in the diffusers layout")
        return read_json_object(file)
    return read_json_object(hub_file(name, f"{part}/config.json"))


@contextmanager
def _found(name: str) -> Iterator[None]:
    """A sentence where a folder lacks what is looked for."""
    try:
        yield
    except (OSError, json.JSONDecodeError) as error:
        said = " ".join(str(error).split())
        raise BadFile(f"{name} is incomplete and cannot be opened: {said}") from error


def _class_of(name: str) -> Any:
    return getattr(diffusers, name)
