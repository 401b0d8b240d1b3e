"""The scale of peft's LoRA, alpha / r, from the configuration that peft and diffusers keep beside the tensors.

peft takes the keys of `alpha_pattern` for regular expressions. Those that a short text can keep busy for hours are
refused: what comes from outside must not hang a run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from urae.errors import BadFile
from urae.io import parse_json_object, read_json_object, typed

__all__ = ["Scaling", "scaling_of"]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
"""peft's names for the two files of an adapter."""

PLAIN = re.compile(r"\\.|\[[^\]]*\]|\(\?[:=!]")
"""What has the marks below without repeating anything."""
REPEATS = re.compile(r"[*+?{]")
MOST_REPEATS = 2
"""In a pattern; matching takes a time that grows with the length of a name to this power."""


class Scaling:
    """peft's scale of each module."""

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        """config: peft's; name: what stands for it in a `BadFile`."""
        kind = config.get("peft_type", "LORA")
        if config.get("use_dora") or kind != "LORA":
            what = "a DoRA" if kind == "LORA" else f"an adapter of the type {kind}"
            raise BadFile(
                f"{name} describes {what}, which is not a low-rank update of the weights, so it is not read"
            )
        self.name = name
        self.config = config
        self.alphas, self.ranks = (self._patterns(key) for key in ("alpha_pattern", "rank_pattern"))

    def __call__(self, module: str, rank: int) -> float:
        """Factor of B A for a module whose factors have this rank. `BadFile` where the configuration has another."""
        said = self._number(self._matching(self.ranks, module, self.config.get("r", rank)), "r")
        if said != rank:
            raise BadFile(f"{self.name} says that {module!r} has rank {said:g}, but its factors have {rank}")
        alpha = self._number(
            self._matching(self.alphas, module, self.config.get("lora_alpha", rank)), "alpha"
        )
        rooted = typed(self.config.get("use_rslora") or False, bool, name=f"use_rslora in {self.name}")
        return alpha / (math.sqrt(rank) if rooted else rank)

    def _number(self, value: Any, what: str) -> float:
        return typed(value, float, name=f"{what} in {self.name}")

    def _patterns(self, key: str) -> list[tuple[re.Pattern[str], Any]]:
        values = typed(self.config.get(key) or {}, dict, name=f"{key} in {self.name}")
        return [(self._compiled(pattern, key), value) for pattern, value in values.items()]

    def _compiled(self, pattern: str, key: str) -> re.Pattern[str]:
        bare = PLAIN.sub("x", pattern)
        if len(REPEATS.findall(bare)) > MOST_REPEATS or re.search(r"\)[*+{]", bare):
            raise BadFile(
                f"{key} in {self.name} has the pattern {pattern!r}, which may take for ever to match: expected at most "
                f"{MOST_REPEATS} repetitions, none of a group"
            )
        try:
            return re.compile(rf"(.*\.)?({pattern})$")
        except (re.error, OverflowError, RecursionError) as error:
            raise BadFile(f"{key} in {self.name} has {pattern!r}, no regular expression ({error})") from error

    @staticmethod
    def _matching(patterns: list[tuple[re.Pattern[str], Any]], module: str, otherwise: Any) -> Any:
        return next((value for pattern, value in patterns if pattern.match(module)), otherwise)


def scaling_of(path: Path, metadata: Mapping[str, str]) -> Scaling | None:
    """The scaling that belongs to a file: of its own metadata, or of the configuration that peft writes beside it."""
    if "lora_adapter_metadata" in metadata:
        name = f"lora_adapter_metadata of {path.name}"
        config = parse_json_object(metadata["lora_adapter_metadata"], name=name)
        return Scaling({key.removeprefix("transformer."): value for key, value in config.items()}, name)
    if path.name == WEIGHTS and (path.parent / CONFIG).is_file():
        return Scaling(read_json_object(path.parent / CONFIG), CONFIG)
    return None
