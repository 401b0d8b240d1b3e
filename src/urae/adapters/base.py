"""The base model that an adapter belongs to, in a few bytes.

An adapter file names its base by class, configuration and a fingerprint of the weights: 512 evenly spaced values of
every tensor, rounded to bf16. A fine-tuned or fused checkpoint differs in nearly every value, so this tells it from
the original as surely as a hash of 24 GB, in a fraction of a second, and alike for fp32 and bf16 copies.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from urae.errors import WrongBase

__all__ = ["Base", "base_of", "base_remembered", "base_stored", "check_base", "check_same_base"]

SAMPLES = 512
"""Values of each tensor that enter the fingerprint."""

REMEMBERED = "_urae_base"
"""Attribute of a transformer whose weights are held in another form for a while."""

COMPARABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Other dtypes, and subclasses of Parameter, hold quantised weights."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """Identity of a transformer."""

    model: str
    """Class name, such as FluxTransformer2DModel."""
    config: str
    """Hash of the configuration."""
    weights: str
    """Fingerprint of the weights; empty for a quantised model, whose values say little about the original's."""
    name: str
    """Hub repository or folder it was loaded from, as far as known."""
    revision: str
    """Hub revision, as far as known."""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, str]) -> Base:
        return cls(**settings)

    def __str__(self) -> str:
        return f"{self.name or self.model} ({self.weights[:12] or 'quantised'})"


def base_of(transformer: nn.Module) -> Base:
    """Identity of a stock transformer; adapters that peft has attached to it do not count."""
    if remembered := transformer.__dict__.get(REMEMBERED):
        return remembered
    name, revision = _origin(transformer)
    return Base(
        model=type(transformer).__name__,
        config=_config_hash(transformer),
        weights=_fingerprint(_base_parameters(transformer)),
        name=name,
        revision=revision,
    )


def base_stored(transformer: nn.Module, parameters: Iterable[tuple[str, Tensor]], *, name: str) -> Base:
    """Identity of a transformer of which only the architecture is in memory; `parameters` come one at a time, in the
    transformer's order."""
    return Base(
        model=type(transformer).__name__,
        config=_config_hash(transformer),
        weights=_fingerprint((key, nn.Parameter(tensor, False)) for key, tensor in parameters),
        name=name,
        revision="",
    )


@contextmanager
def base_remembered(transformer: nn.Module) -> Iterator[None]:
    """For the duration of a with statement `base_of` says what it says now, however the weights are stored then."""
    transformer.__dict__[REMEMBERED] = base_of(transformer)
    try:
        yield
    finally:
        del transformer.__dict__[REMEMBERED]


def check_base(expected: Base, transformer: nn.Module) -> None:
    """Raise `WrongBase` where the transformer is another model than the expected one."""
    check_same_base(expected, base_of(transformer))


def check_same_base(expected: Base, found: Base) -> None:
    """Raise `WrongBase` where the two are different models."""
    remedy = "load the model it was trained on, or pass allow_other_base=True"
    if (found.model, found.config) != (expected.model, expected.config):
        raise WrongBase(
            f"the adapter was made for {expected} but this is {found}, of another configuration; {remedy}"
        )
    if expected.weights and found.weights and expected.weights != found.weights:
        raise WrongBase(
            f"the adapter was made for {expected} but the weights of this model are {found}; {remedy}"
        )


def _origin(transformer: nn.Module) -> tuple[str, str]:
    path = str(_config(transformer).get("_name_or_path") or "")
    cached = re.search(r"models--(.+?)--(.+?)/snapshots/([0-9a-f]+)", path)
    if cached:
        return f"{cached[1]}/{cached[2]}", cached[3]
    if Path(path).is_absolute():  # a local folder's place is nobody's business; its name is a help
        parts = [part for part in Path(path).parts if part not in ("transformer", "weights")]
        return parts[-1], ""
    return path, ""


def _config(transformer: nn.Module) -> Mapping[str, Any]:
    return getattr(transformer, "config", {})


def _config_hash(transformer: nn.Module) -> str:
    kept = {key: value for key, value in _config(transformer).items() if _is_architecture(key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _is_architecture(key: str) -> bool:
    return not key.startswith("_") and key != "quantization_config"


def _fingerprint(parameters: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in parameters:
        if tensor.is_meta:
            raise ValueError(
                f"{name} is on the meta device, so the base cannot be recognised: "
                "use the adapter before enable_sequential_cpu_offload()"
            )
        if tensor.dtype not in COMPARABLE or type(tensor) is not nn.Parameter:
            return ""
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES].to("cpu", torch.bfloat16)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _base_parameters(transformer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in transformer.named_parameters():
        if ".lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter
