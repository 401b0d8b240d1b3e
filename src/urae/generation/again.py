"""A picture made again, or differently: what its file says, in the words of the requests.

A picture may come from a stranger. It names a model and files, but only models that everybody knows are opened because
of it, and only adapters that lie beside it or here, under their bare names, or that come with the package; what they
hold is checked by its hash.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urae import adapters, families, provenance
from urae.generation.methods import METHODS, method_from_texts, method_named
from urae.provenance import Foreign, Provenance

__all__ = ["Again", "asked_again"]

OF_THE_PASS = ("policy", "steps", "guidance", "speed", "decode")
"""What belongs to the denoising at the target size."""
DECIDES_POLICY = ("size", "method", "adapter", "model", "start")
"""What a policy may have been chosen for."""
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, kw_only=True)
class Again:
    """What a picture asks for, but for what the user says."""

    model: Mapping[str, Any]
    """Fields of a `ModelRequest`."""
    drawing: Mapping[str, Any]
    """Fields of a `DrawingRequest`."""
    said: Sequence[str]
    """What is to be told of it, a line each."""
    adapter_hash: str = ""
    """Of the adapters that are taken from the picture; empty for none."""
    path: Path

    def check(self, adapter: Any) -> None:
        """Raise ValueError where the adapters found are others than those that the picture was made with."""
        if self.adapter_hash and adapter.hash != self.adapter_hash:
            raise ValueError(
                f"{self.path} was made with another file than the {adapter.name} that is there now: give the right one "
                "with --adapter, or this one to draw something else"
            )


def asked_again(path: Path, *, given: Collection[str], settings: Sequence[str] = ()) -> Again:
    """How to make the picture in a file again; `given` are the fields that the user sets, and that are left out here.
    `settings` change its method's options, as "option=value".

    Raises `BadFile` for a picture that does not say how it was made, ValueError for what cannot be taken from it.
    """
    made = provenance.read_maker(path)
    if isinstance(made, Foreign):
        return _like_foreign(made, path, given)
    if made.method not in METHODS or made.enlarged:
        by = "urae enlarge" if made.enlarged else f"a {made.method} pipeline of its own"
        raise ValueError(
            f"{path} was made by {by}, and not by a method of urae generate: it cannot be made again with --like"
        )
    drawing = _drawing(made, path, given, settings)
    model = _model(made, path, given)
    over = {"settings": ()} if "method" in drawing else {}
    notes = []
    if "policy" not in given and any(name in given for name in DECIDES_POLICY):
        drawing.pop("policy", None)
        notes = ["policy: chosen anew, since what it was chosen for is changed"]
    return Again(
        model={key: value for key, value in model.items() if key not in given},
        drawing={key: value for key, value in drawing.items() if key not in given} | over,
        said=[
            f"like {path}: {made.method}, seed {made.seed}, made by urae {made.versions.get('urae', '')}",
            *notes,
        ],
        adapter_hash="" if {"adapter", "model"} & set(given) else made.adapter_hash,
        path=path,
    )


def _drawing(made: Provenance, path: Path, given: Collection[str], settings: Sequence[str]) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "prompt": [made.prompt],
        "negative": made.negative,
        "seed": made.seed,
        "size": made.size,
    }
    if "method" in given:
        return asked
    method = method_named(made.method, made.options)
    if settings:
        changed = method_from_texts(made.method, list(settings))
        method = replace(
            method, **{(name := one.partition("=")[0]): getattr(changed, name) for one in settings}
        )
    if made.native_file and "native" not in given:
        raise ValueError(
            f"{path} was drawn from another picture, {made.native_file}: give that with --native"
        )
    asked["method"] = method
    if method.steps == 0:
        return asked
    decode = next((way for way in ("tiles", "strips") if f"VAE in {way}" in made.memory), "whole")
    asked |= {"policy": made.policy or "none", "steps": made.steps, "speed": made.speed, "decode": decode}
    return asked if made.guidance is None else asked | {"guidance": made.guidance}


def _model(made: Provenance, path: Path, given: Collection[str]) -> dict[str, Any]:
    if "model" in given:
        return {}
    if made.model != "mini" and made.model not in _known_models():
        raise ValueError(
            f"{path} was made with the model {made.model!r}, which is not a published one: give it with --model"
        )
    asked: dict[str, Any] = {"model": made.model, "base_weights": made.base_weights}
    if made.dtype in DTYPES:
        asked["dtype"] = made.dtype
    if made.adapter_hash and "adapter" not in given:
        asked["adapter"] = _adapter_files(made, path)
    return asked


def _known_models() -> set[str]:
    return {name for family in families.families() for name in family.pipelines.published}


def _adapter_files(made: Provenance, path: Path) -> list[Path]:
    uses = [(one.file, one.strength) for one in made.adapters] or [(made.adapter_file, 1.0)]
    files = []
    for name, strength in uses:
        places = [folder / name for folder in (path.parent, Path()) if name and Path(name).name == name]
        found = (place for place in places if place.is_file())
        file = Path(name) if name in adapters.SHIPPED else next(found, None)
        if file is None:
            called = (
                f"the adapter {name}, which is neither beside it nor here"
                if name
                else "an adapter of no file"
            )
            raise ValueError(f"{path} was made with {called}: give it with --adapter")
        files.append(Path(f"{file}:{strength!r}"))
    return files


def _like_foreign(made: Foreign, path: Path, given: Collection[str]) -> Again:
    drawing = {key: value for key, value in made.taken.items() if key not in given}
    lines = [f"like {path}, of {made.tool}; taken: {', '.join(drawing)}"]
    if made.left:
        lines.append(f"not taken: {'; '.join(f'{key} {value}' for key, value in made.left.items())}")
    lines.append("the same seed gives other noise here, so the picture is another one")
    return Again(model={}, drawing=drawing | {"prompt": [made.taken["prompt"]]}, said=lines, path=path)
