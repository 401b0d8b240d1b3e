"""An adapter as a value: plain LoRA tensors, and everything their result depends on.

`Adapter.load` reads a file, `save` writes one, `on` applies weights and policy to a stock pipeline and undoes both.
Every check (file, base, shapes, finite values) comes before the first change to a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from urae.adapters.base import Base, base_of, check_base
from urae.adapters.convert import Parsed, parse, to_layout
from urae.adapters.decomposition import tensor_hash
from urae.adapters.factors import Factors, stacked
from urae.adapters.files import file_named, read_file, write_file
from urae.adapters.full import by_holder, check_differences, differences_applied
from urae.adapters.injection import check_fits, injected
from urae.adapters.published import completed
from urae.adapters.scaling import scaling_of
from urae.adapters.specs import Minor, Spec
from urae.adapters.targets import transformer_of
from urae.errors import BadFile
from urae.resolution import ResolutionPolicy

__all__ = ["Adapter", "Own"]

Own = Literal["own"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """Weights that change a transformer, with the conditions they were made for. Made by `attached.export` or `load`.

    A low-rank adapter has `factors`, a full one `differences`; ComfyUI extracts some that have both.
    """

    factors: Factors = field(default_factory=dict, repr=False)
    """Module name -> A (r, in), B (out, r), fp32 on the CPU. The update of the module's weight is B A."""
    differences: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """Parameter name -> change of the parameter, for `Full`."""
    layout: str = "diffusers"
    """Key layout of the file it was read from: diffusers, kohya, comfy, bfl or processor."""
    spec: Spec | None = None
    """What was trained; None for a merged adapter and for a file that does not say."""
    policy: ResolutionPolicy | None = None
    """The conditions it was trained for; None where the file does not say."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    """Provenance of the training data."""
    base: Base | None = None
    """The model it was trained on; None where the file does not say."""
    start: str = ""
    """Hash of the adapter that it was trained on top of, and that it contains; empty if there was none."""
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    """UTC time, ISO 8601; not part of `hash`."""
    file: str = ""
    """Name of the file that it was read from; neither part of `hash` nor written. Empty for one that was in none."""

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        base: Any = None,
        start: Adapter | str | Path | None = None,
        allow_other_base: bool = False,
        cache: str | Path | None = None,
    ) -> Adapter:
        """Read a safetensors file of any layout that `urae adapter convert` knows, or a published URAE file. Of peft's
        `adapter_model.safetensors` the configuration beside it is read too. "mini:2x" and "mini:4x" are the adapters
        that ship with the miniature.

        `base`, a pipeline or transformer, is checked against the file at once. The published 4K layout holds only
        trained minor factors: it needs the `base` they were cut from, and as `start` the 2K adapter that was fused
        into it first; the decomposition is repeated (`cache` keeps it).

        Raises ValueError for arguments, `BadFile` for what is wrong with the file, `WrongBase` where the base does
        not fit it.
        """
        if isinstance(start, str | Path):
            start = cls.load(start, base=base, allow_other_base=allow_other_base)
        file = file_named(path)
        tensors, described, metadata = read_file(file)
        scaling = scaling_of(file, metadata)
        try:
            parsed = parse(tensors, scaling)
        except BadFile as error:
            raise BadFile(f"{Path(path).name}: {error}") from error
        if parsed.layout == "processor":
            adapter = cls._published(parsed, base=base, start=start, cache=cache)
        elif start is not None:
            raise ValueError(f"{Path(path).name} is complete, so that start has no effect: leave it out")
        else:
            adapter = cls._described(parsed, described, file)
        if base is not None:
            adapter.check(base, allow_other_base=allow_other_base)
        return replace(adapter, file=Path(path).name)

    def save(
        self, path: str | Path, *, layout: str = "diffusers", dtype: torch.dtype = torch.float32
    ) -> Path:
        """Write a safetensors file that stock loaders read, with one metadata key "urae" for what they do not.

        A full adapter is written as weight differences, which ComfyUI reads in the layout "comfy" and stock
        `load_lora_weights` not at all. `ValueError` for values that are not finite in `dtype`.
        """
        model = self.base.model if self.base else ""
        tensors = to_layout(self.factors, layout, differences=self.differences, model=model)
        stored = {key: tensor.to(dtype) for key, tensor in tensors.items()}
        write_file(Path(path), stored, self.metadata())
        return Path(path)

    @contextmanager
    def on(
        self,
        target: Any,
        *,
        policy: ResolutionPolicy | Own | None = "own",
        allow_other_base: bool = False,
    ) -> Iterator[None]:
        """Apply weights and policy to a stock pipeline or transformer until the block ends; both are undone.

        `policy` replaces the adapter's own, None leaves the pipeline's as it is. Adapters nest: weights add up, the
        inner policy rules. `WrongBase` is raised before anything is touched; `allow_other_base` accepts a model
        with other weights, never one with other shapes.
        """
        transformer = transformer_of(target)
        self.check(transformer, allow_other_base=allow_other_base)
        chosen = self.policy if policy == "own" else policy
        with ExitStack() as stack:
            stack.enter_context(self._weights_on(transformer))
            if chosen is not None:
                stack.enter_context(chosen.on(target))
            yield

    def check(self, target: Any, *, allow_other_base: bool = False) -> None:
        """Raise `WrongBase` where this adapter does not belong to the pipeline or transformer."""
        transformer = transformer_of(target)
        check_fits(transformer, self.factors)
        check_differences(transformer, self.differences)
        if self.base is not None and not allow_other_base:
            check_base(self.base, transformer)

    @property
    def name(self) -> str:
        """As messages call it: its file, or the beginning of its hash."""
        return self.file or f"the adapter {self.hash[:12]}"

    @property
    def is_full(self) -> bool:
        """Whether it holds weight differences, which a LoRA does not."""
        return bool(self.differences)

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of a plain diffusers LoRA: ``transformer.<module>.lora_A.weight`` (r, in) and ``lora_B``
        (out, r), without alpha; for a full adapter ``transformer.<parameter>.diff``."""
        return to_layout(self.factors, "diffusers", differences=self.differences)

    def metadata(self) -> dict[str, Any]:
        """What the file says besides the tensors, as JSON types."""
        return {
            "spec": self.spec.to_dict() if self.spec else None,
            "policy": self.policy.to_dict() if self.policy else None,
            "recipe": dict(self.recipe),
            "data": dict(self.data),
            "base": self.base.to_dict() if self.base else None,
            "start": self.start,
            "versions": dict(self.versions),
            "created": self.created,
        }

    @cached_property
    def hash(self) -> str:
        """SHA-256 over tensors and metadata, except the time of creation."""
        tensors = self.state_dict()
        described = {key: value for key, value in self.metadata().items() if key != "created"}
        text = json.dumps([sorted(tensors), described], sort_keys=True)
        return hashlib.sha256(
            f"{text}{tensor_hash(*(tensors[key] for key in sorted(tensors)))}".encode()
        ).hexdigest()

    @classmethod
    def _published(
        cls, parsed: Parsed, *, base: Any, start: Adapter | None, cache: str | Path | None
    ) -> Adapter:
        factors = completed(parsed.factors, base=base, start=start.factors if start else {}, cache=cache)
        rank = next(iter(parsed.factors.values()))[0].shape[0]
        return cls(
            factors=factors,
            layout=parsed.layout,
            spec=Minor(rank=rank),
            base=base_of(transformer_of(base)),
            start=start.hash if start else "",
        )

    @classmethod
    def _described(cls, parsed: Parsed, described: Mapping[str, Any], path: Path) -> Adapter:
        weights: dict[str, Any] = {
            "factors": parsed.factors,
            "differences": parsed.differences,
            "layout": parsed.layout,
        }
        if not described:
            return cls(**weights)
        try:
            return cls(**weights, **_from_metadata(described))
        except (KeyError, TypeError, ValueError) as error:
            raise BadFile(f"{path.name} has metadata that urae does not understand ({error})") from error

    @contextmanager
    def _weights_on(self, transformer: nn.Module) -> Iterator[None]:
        dense, rounded = by_holder(transformer, self.differences)
        factors = stacked(self.factors, rounded)
        added = injected(transformer, factors) if factors else nullcontext()
        with differences_applied(transformer, dense), added:
            yield


def _from_metadata(described: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `Adapter.metadata`."""
    readers = {"spec": Spec.from_dict, "policy": ResolutionPolicy.from_dict, "base": Base.from_dict}
    return {
        key: readers[key](value) if key in readers and value is not None else value
        for key, value in described.items()
    }
