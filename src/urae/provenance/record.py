"""What an image was made from: enough to make the same image again.

As texts by name it is in `image.info` before an image is saved; a file holds it as one JSON text.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from urae.errors import BadFile
from urae.io import field_of, parse_json_object, typed
from urae.resolution import ResolutionPolicy, Size

__all__ = ["KEYS", "AdapterUse", "Provenance", "versions"]

KEYS = ("prompt", "seed", "size", "steps", "guidance", "method", "policy")
"""The texts that every image of ours has; the other fields are there where they say something."""

FORMAT = 1
"""Version of the JSON text. Readers refuse newer ones."""

LONGEST_SIDE = 2**16
"""Pixels, more than any picture of ours has."""

EXTRA = ("weights_hash", "kernels")
"""Texts that are known only once the image is made."""


@dataclass(frozen=True, kw_only=True)
class AdapterUse:
    """An adapter of a stack."""

    file: str
    """The file's name; empty if it never was in one."""
    hash: str
    strength: float


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that decides an image's pixels, by name."""

    prompt: str
    seed: int
    size: Size
    """(width, height) in pixels."""
    steps: int
    guidance: float | None
    """None for a model that takes no guidance scale."""
    method: str
    options: Mapping[str, Any]
    """The method's own settings by name, JSON types; empty for a method without options."""
    native: str
    """SHA-256 of the native picture's size and pixels; empty for a method without one."""
    policy: ResolutionPolicy | None
    """None for stock behaviour."""
    adapter_hash: str
    """Of the adapter, or of a stack; empty without."""
    adapter_file: str
    """The file's name; empty for a stack, and if the adapter never was in a file."""
    model: str
    memory: str
    """The memory plan in words: tiles change pixels where they meet."""
    versions: Mapping[str, str]
    base_weights: str = "as_loaded"
    """How the transformer's matrices were held: "fp8", "int8", "nf4", or as they were loaded."""
    speed: str = "exact"
    """What was left out, as `generate` takes it; without an entry nothing was."""
    negative: str = ""
    """Negative prompt; empty for none."""
    dtype: str = ""
    """What the transformer computed in, such as "bfloat16"; empty in older files."""
    adapters: tuple[AdapterUse, ...] = ()
    """Of a stack."""
    native_file: str = ""
    """Name of the native picture where it was given; empty where it was drawn, and in older files."""
    enlarged: Mapping[str, Any] | None = None
    """What `urae enlarge` did before and after, JSON types; None for any other picture."""
    weights_hash: str = ""
    """SHA-256 of the file of a network that enlarged it; known once it is drawn."""
    kernels: str = ""
    """How it was computed, where that was chosen; known once it is drawn."""

    def to_info(self) -> dict[str, str]:
        """As texts for `image.info`; what is empty is left out."""
        width, height = self.size
        texts = {
            "prompt": self.prompt,
            "negative": self.negative,
            "seed": str(self.seed),
            "size": f"{width}x{height}",
            "steps": str(self.steps),
            "guidance": "none" if self.guidance is None else str(self.guidance),
            "method": self.method,
            "options": _json(self.options),
            "native": self.native,
            "native_file": self.native_file,
            "policy": self.policy.to_json() if self.policy else "none",
            "adapter_hash": self.adapter_hash,
            "adapter_file": self.adapter_file,
            "adapters": _json([vars(one) for one in self.adapters]),
            "model": self.model,
            "dtype": self.dtype,
            "base_weights": self.base_weights if self.base_weights != "as_loaded" else "",
            "memory": self.memory,
            "speed": self.speed,
            "enlarged": _json(self.enlarged or {}),
            "weights_hash": self.weights_hash,
            "kernels": self.kernels,
            "versions": json.dumps(dict(self.versions)),
        }
        return {key: text for key, text in texts.items() if text or key in KEYS}

    @classmethod
    def from_info(cls, info: Mapping[str, str]) -> Provenance:
        """The inverse of `to_info`; other entries are ignored. KeyError if one of `KEYS` is missing, ValueError or
        `BadFile` for one that `to_info` does not write."""
        width, height = info["size"].split("x")
        values = {
            **{key: text for key, text in info.items() if key in TEXTS},
            "seed": int(info["seed"]),
            "size": [int(width), int(height)],
            "steps": int(info["steps"]),
            "guidance": None if info["guidance"] == "none" else float(info["guidance"]),
            "policy": None if info["policy"] == "none" else parse_json_object(info["policy"], name="policy"),
            "adapters": json_list(info.get("adapters", "[]"), name="adapters"),
            **{
                key: parse_json_object(info[key], name=key)
                for key in ("options", "versions", "enlarged")
                if key in info
            },
        }
        return cls.from_dict(values | {key: info[key] for key in KEYS if key in TEXTS}, name="the picture")

    def to_dict(self) -> dict[str, Any]:
        """In JSON types, under the fields' names; what is as it mostly is, is left out."""
        usual = type(self).__dataclass_fields__
        values = {name: value for name, value in vars(self).items() if value != usual[name].default}
        values |= {"size": list(self.size), "policy": self.policy.to_dict() if self.policy else None}
        if self.adapters:
            values["adapters"] = [vars(one) for one in self.adapters]
        return {"format": FORMAT, **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, name: object) -> Provenance:
        """The inverse of `to_dict`, of a file that a stranger may have written. Raises `BadFile`."""
        if (version := values.get("format", FORMAT)) != FORMAT:
            raise BadFile(f"{name} has format {version!r}, this urae reads {FORMAT}: upgrade urae")
        asked = {key: field_of(values, key, kind, name=name) for key, kind in REQUIRED.items()}
        texts = {key: typed(values[key], str, name=f"{key} of {name}") for key in TEXTS if key in values}
        policy, enlarged = values.get("policy"), values.get("enlarged")
        uses = typed(values.get("adapters", []), list, name=f"adapters of {name}")
        return cls(
            **{"native": "", "adapter_hash": "", "adapter_file": "", "model": "", "memory": ""}
            | texts
            | asked,
            size=_size(values.get("size"), name),
            guidance=None
            if values.get("guidance") is None
            else field_of(values, "guidance", float, name=name),
            options=typed(values.get("options", {}), dict, name=f"options of {name}"),
            policy=None if policy is None else _policy(policy, name),
            versions=typed(values.get("versions", {}), dict, name=f"versions of {name}"),
            adapters=tuple(_use(typed(one, dict, name=f"an adapter of {name}"), name) for one in uses),
            enlarged=None if enlarged is None else typed(enlarged, dict, name=f"enlarged of {name}"),
        )


REQUIRED: dict[str, Any] = {"prompt": str, "seed": int, "steps": int, "method": str}
TEXTS = (
    *("prompt", "negative", "method", "native", "native_file", "adapter_hash", "adapter_file", "model"),
    *("dtype", "base_weights", "memory", "speed", *EXTRA),
)
"""Fields that are texts."""


def versions() -> dict[str, str]:
    """Versions of the packages that decide the pixels."""
    return {name: importlib.metadata.version(name) for name in ("urae", "diffusers", "torch")}


def json_list(text: str, *, name: str) -> list[Any]:
    """The list in a JSON text. Raises `BadFile`."""
    return parse_json_object(f'{{"list": {text}}}', name=name)["list"]


def _json(value: Any) -> str:
    return json.dumps(value if isinstance(value, list) else dict(value)) if value else ""


def _size(size: Any, name: object) -> Size:
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and 0 < side <= LONGEST_SIDE for side in size)
    ):
        raise BadFile(f"size of {name} is {size!r:.80}: expected width and height")
    return size[0], size[1]


def _policy(settings: Any, name: object) -> ResolutionPolicy:
    try:
        return ResolutionPolicy.from_dict(typed(settings, dict, name=f"policy of {name}"))
    except (ValueError, TypeError) as error:
        raise BadFile(f"policy of {name} is not a policy: {error}") from error


def _use(values: dict[str, Any], name: object) -> AdapterUse:
    kinds = {"file": str, "hash": str, "strength": float}
    return AdapterUse(**{key: field_of(values, key, kind, name=name) for key, kind in kinds.items()})
