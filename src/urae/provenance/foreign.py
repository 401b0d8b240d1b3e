"""What other tools say about their pictures: AUTOMATIC1111's text, which many write, and ComfyUI's graph.

Only what has one reading is taken: prompts, size, steps, seed and guidance. A graph is followed from its one sampler;
one with several, or with nodes in between that are not known here, is refused rather than guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from urae.errors import BadFile
from urae.io import parse_json_object

__all__ = ["Foreign", "from_graph", "from_parameters"]


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """How another tool made a picture, as far as it is understood."""

    tool: str
    taken: Mapping[str, Any]
    """prompt, negative, size, steps, seed, guidance, as `generate` calls them; what is not told is left out."""
    left: Mapping[str, str]
    """Everything else that it says, in its own words."""


SETTING = re.compile(r'\s*([A-Za-z][\w \-/]{0,60}):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
NEGATIVE = "Negative prompt:"
MEANINGS = {"Steps": "steps", "Seed": "seed", "Size": "size", "CFG scale": "guidance"}
DISTILLED = "Distilled CFG Scale"
"""The guidance of models such as FLUX.1, whose "CFG scale" is then 1."""


def from_parameters(text: str, *, name: object) -> Foreign:
    """AUTOMATIC1111's form: the prompt, "Negative prompt: ...", a line of settings. `BadFile` for another text."""
    *lines, last = text.strip().split("\n")
    settings = {key.strip(): value.strip().strip('"') for key, value in SETTING.findall(last)}
    if not {"Steps", "Seed", "Size"} <= settings.keys():
        raise BadFile(
            f"{name} has parameters that AUTOMATIC1111 does not write: it lacks a line with Steps, Seed and Size"
        )
    prompt, _, negative = ("\n" + "\n".join(lines)).partition(f"\n{NEGATIVE}")
    told = {MEANINGS[key]: _number(settings.pop(key), key, name) for key in list(settings) if key in MEANINGS}
    if DISTILLED in settings:
        told["guidance"] = _number(settings.pop(DISTILLED), DISTILLED, name)
    texts = {"prompt": prompt.strip(), "negative": negative.strip()}
    return Foreign(
        tool="AUTOMATIC1111 or a tool that writes like it",
        taken={key: text for key, text in texts.items() if text or key == "prompt"} | told,
        left=settings,
    )


def _number(text: str, key: str, name: object) -> Any:
    if key == "Size" and (sides := re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)):
        return int(sides[1]), int(sides[2])
    if key in ("Steps", "Seed") and re.fullmatch(r"\d{1,20}", text):
        return int(text)
    if key not in ("Steps", "Seed", "Size") and re.fullmatch(r"\d{1,6}(\.\d{1,20})?", text):
        return float(text)
    raise BadFile(f"{name} says {key}: {text[:40]!r}, which is not such a setting")


# --- ComfyUI -----------------------------------------------------------------------------------------------------

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustomAdvanced", "SamplerCustom")
PASSED = {"FluxGuidance": "conditioning", "BasicGuider": "conditioning", "ModelSamplingFlux": "model"}
"""Nodes on the way from the sampler, and the input by which it goes on."""
TEXTS = {"CLIPTextEncode": "text", "CLIPTextEncodeFlux": "t5xxl", "CLIPTextEncodeSD3": "t5xxl"}
EMPTIED = ("ConditioningZeroOut",)
"""Where a negative prompt is none, whatever it is made from."""
LATENTS = ("EmptyLatentImage", "EmptySD3LatentImage", "EmptyFlux2LatentImage")
OTHERS = ("CFGGuider", "RandomNoise", "BasicScheduler", "Flux2Scheduler")
UNDERSTOOD = {*SAMPLERS, *PASSED, *TEXTS, *LATENTS, *OTHERS}


def from_graph(text: str, *, name: object) -> Foreign:
    """A graph of ComfyUI with one sampler from an empty latent. `BadFile` for another."""
    graph = _ComfyGraph(parse_json_object(text, name=f"the graph of {name}"), name)
    samplers = [node for node in graph.nodes.values() if node["class_type"] in SAMPLERS]
    if len(samplers) != 1:
        raise BadFile(
            f"{name} holds a graph of ComfyUI with {len(samplers)} samplers: only one drawing is understood"
        )
    sampler = samplers[0]["inputs"]
    guider = graph.at(sampler, "guider") or sampler
    positive = "conditioning" if "conditioning" in guider else "positive"
    taken = {
        "prompt": graph.text(guider, positive),
        "negative": graph.text(guider, "negative", none=EMPTIED) if "negative" in guider else "",
        "size": graph.size(sampler),
        "steps": graph.number(("steps",), sampler, graph.at(sampler, "sigmas")),
        "seed": graph.number(("seed", "noise_seed"), sampler, graph.at(sampler, "noise")),
        "guidance": graph.number(("guidance",), *(node["inputs"] for node in graph.way(guider, positive))),
    }
    if taken["guidance"] is None:
        taken["guidance"] = graph.number(("cfg",), guider)
    others = sorted({node["class_type"] for node in graph.nodes.values()} - UNDERSTOOD)
    return Foreign(
        tool="ComfyUI",
        taken={key: value for key, value in taken.items() if value not in (None, "") or key == "prompt"},
        left={"nodes": ", ".join(others)} if others else {},
    )


class _ComfyGraph:
    """Nodes by their ids, and the ways between them."""

    def __init__(self, nodes: Mapping[str, Any], name: object) -> None:
        for node in nodes.values():
            if not (
                isinstance(node, dict)
                and isinstance(node.get("class_type"), str)
                and isinstance(node.get("inputs"), dict)
            ):
                raise BadFile(f"{name} has a text prompt that is not a graph of ComfyUI")
        self.nodes, self.name = nodes, name

    def node(self, inputs: Mapping[str, Any], key: str) -> dict[str, Any] | None:
        """The node that an input is linked to."""
        link = inputs.get(key)
        return self.nodes.get(str(link[0])) if isinstance(link, list) and len(link) == 2 else None

    def at(self, inputs: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The inputs of that node; none without a link."""
        node = self.node(inputs, key)
        return node["inputs"] if node else {}

    def way(self, inputs: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """The nodes from an input on, as long as they are known to pass something on."""
        nodes: list[dict[str, Any]] = []
        while (node := self.node(inputs, key)) and node not in nodes and len(nodes) < len(self.nodes):
            nodes.append(node)
            key, inputs = PASSED.get(node["class_type"], ""), node["inputs"]
        return nodes

    def text(self, inputs: Mapping[str, Any], key: str, *, none: Collection[str] = ()) -> str:
        """What is drawn, at the end of the way; nothing at nodes of `none`."""
        end = next(reversed(self.way(inputs, key)), None)
        if end and end["class_type"] in none:
            return ""
        said = end["inputs"].get(TEXTS.get(end["class_type"], "")) if end else None
        if not isinstance(said, str):
            kind = end["class_type"] if end else "nothing"
            raise BadFile(
                f"{self.name} holds a graph of ComfyUI whose prompt comes from {kind}, which is unknown here"
            )
        return said

    def size(self, sampler: Mapping[str, Any]) -> tuple[int, int]:
        """Of the empty latent that is drawn from."""
        node = self.node(sampler, "latent_image")
        sides = [self.number((side,), node["inputs"]) for side in ("width", "height")] if node else []
        if node is None or node["class_type"] not in LATENTS or not all(type(side) is int for side in sides):
            raise BadFile(
                f"{self.name} holds a graph of ComfyUI that does not begin with an empty latent: its size is unknown"
            )
        return sides[0], sides[1]

    def number(self, keys: Sequence[str], *places: Mapping[str, Any]) -> Any:
        """The first of these inputs that is a number."""
        found = (inputs[key] for inputs in places for key in keys if type(inputs.get(key)) in (int, float))
        return next(found, None)
