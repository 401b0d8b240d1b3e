"""The nodes, as ComfyUI's third schema has them: what they are called, take, give and explain."""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.utils
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

from .guided import SCHEDULES, Hiflow, Imax, enlarged, sigmas_below
from .patching import apply_adapter, apply_policy, apply_shift, family_of, shift_of
from .policy import ByHand, Policy, policy_of_metadata

__all__ = ["UraeExtension"]

BY_RULE = ["clip", "theta", "linear", "ntk", "yarn", "dype", "dype_ntk"]


class _Node(io.ComfyNode):
    """What every node says of itself, in the order in which it is shown."""

    title: ClassVar[str]
    about: ClassVar[str]
    gives: ClassVar[tuple[type, ...]] = (io.Model,)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=cls.__name__,
            display_name=cls.title,
            category="urae",
            description=cls.about,
            inputs=[io.Model.Input("model"), *cls.takes()],
            outputs=[kind.Output() for kind in cls.gives],
        )

    @classmethod
    def takes(cls) -> list[Any]:
        """Inputs behind the model."""
        raise NotImplementedError


class UraeAdapter(_Node):
    """An adapter and the policy that it was trained under."""

    title = "URAE adapter"
    about = "Loads an adapter and runs the model under the resolution policy that its file carries."

    @classmethod
    def takes(cls) -> list[Any]:
        return [_file(), _number("strength", 1.0, "Factor on the weights.", least=-4.0, most=4.0)]

    @classmethod
    def execute(cls, model: Any, adapter: str, strength: float) -> io.NodeOutput:
        family_of(model)
        tensors, metadata = _read(adapter)
        policy = policy_of_metadata(metadata, name=adapter)
        return io.NodeOutput(apply_policy(apply_adapter(model, tensors, strength, name=adapter), policy))


class UraePolicyOfAdapter(_Node):
    """The policy of an adapter's file, without its weights."""

    title = "URAE policy of an adapter"
    about = "Runs the model under the resolution policy in an adapter's file, without its weights."

    @classmethod
    def takes(cls) -> list[Any]:
        return [_file()]

    @classmethod
    def execute(cls, model: Any, adapter: str) -> io.NodeOutput:
        return io.NodeOutput(apply_policy(model, policy_of_metadata(_read(adapter)[1], name=adapter)))


class UraePolicyJson(_Node):
    """A policy as `urae` prints it."""

    title = "URAE policy from JSON"
    about = "Runs the model under a resolution policy in JSON, as urae prints and writes it."

    @classmethod
    def takes(cls) -> list[Any]:
        return [io.String.Input("policy", multiline=True, default='{"shift": 3.0}')]

    @classmethod
    def execute(cls, model: Any, policy: str) -> io.NodeOutput:
        return io.NodeOutput(apply_policy(model, Policy.from_json(policy)))


class UraePolicy(_Node):
    """A policy by hand."""

    title = "URAE policy"
    about = (
        "Positions, attention and timestep shift above the native size, which is read from the latents that are "
        "sampled. At or below it only the shift acts."
    )

    @classmethod
    def takes(cls) -> list[Any]:
        return [
            io.Combo.Input("rule", options=BY_RULE, tooltip="How the rotary frequencies are lowered."),
            _number(
                "rope_scale",
                0.0,
                "Factor on theta, for the rules clip and theta. 0: the model's (10 for FLUX.1), or twice the scale if "
                "that is more.",
                most=1000.0,
                step=0.1,
            ),
            _number("scale", 0.0, "Size over native size. 0: from the latents.", most=64.0),
            io.Combo.Input(
                "proportional",
                options=["auto", "on", "off"],
                tooltip="Proportional attention. auto: on above the native size, but for yarn and dype.",
            ),
            _number(
                "shift",
                0.0,
                "Static timestep shift. 0: the model's, which is 3 for FLUX.1-dev. The node ModelSamplingFlux means "
                "its logarithm.",
                most=100.0,
            ),
        ]

    @classmethod
    def execute(cls, model: Any, **settings: Any) -> io.NodeOutput:
        return io.NodeOutput(apply_policy(model, ByHand(family=family_of(model), **settings)))


class _SecondPass(_Node):
    """Along a native picture, by SamplerCustom."""

    gives = (io.Model, io.Sigmas, io.Latent)
    steps: ClassVar[int]
    """That are usual."""

    @classmethod
    def takes(cls) -> list[Any]:
        return [
            io.Vae.Input("vae"),
            io.Latent.Input("native", tooltip="The finished latents of a pass at native size."),
            io.Latent.Input(
                "target", tooltip="Empty latents of the size to be made; its size alone is used."
            ),
            io.Int.Input("steps", default=cls.steps, min=1, max=1000),
            *cls.options(),
        ]

    @classmethod
    def options(cls) -> list[Any]:
        """Inputs of the method."""
        raise NotImplementedError


class UraeSdedit(_SecondPass):
    """The start of an SDEdit pass."""

    title = "URAE guided: SDEdit"
    about = (
        "Takes the upscaled native picture back to a noise level, to be denoised from there by SamplerCustom with "
        "these sigmas and this latent."
    )
    gives = (io.Sigmas, io.Latent)
    steps = 14

    @classmethod
    def options(cls) -> list[Any]:
        return [_start(0.875)]

    @classmethod
    def execute(
        cls, model: Any, vae: Any, native: dict, target: dict, steps: int, start_sigma: float
    ) -> io.NodeOutput:
        guide = _enlarged(model, vae, native, target)
        return io.NodeOutput(
            sigmas_below(start_sigma, shift=shift_of(model), steps=steps), {"samples": guide}
        )


class UraeImax(_SecondPass):
    """A model that is guided by the native picture."""

    title = "URAE guided: I-Max"
    about = (
        "Draws the low frequencies of each step towards the upscaled native picture. Sample from fresh noise, by "
        "SamplerCustom with this model, these sigmas and this latent."
    )
    steps = 30

    @classmethod
    def options(cls) -> list[Any]:
        return [
            io.Combo.Input(
                "schedule", options=list(SCHEDULES), tooltip="How the pull changes over the steps."
            ),
            _number("weight", 1.0, "Factor on the pull."),
            io.Int.Input(
                "low_pass_level",
                default=1,
                min=0,
                max=6,
                tooltip="Averages over blocks of 2^level latents; 0 is all frequencies.",
            ),
            _number(
                "shift",
                6.0,
                "Timestep shift of this pass, in place of the policy's. 0: the model's own.",
                most=100.0,
            ),
        ]

    @classmethod
    def execute(
        cls, model: Any, vae: Any, native: dict, target: dict, steps: int, shift: float, **pull: Any
    ) -> io.NodeOutput:
        family_of(model)
        guide = model.model.process_latent_in(_enlarged(model, vae, native, target))
        guided = _guided(apply_shift(model, shift) if shift else model, Imax, guide, pull)
        sigmas = sigmas_below(1.0, shift=shift_of(guided), steps=steps)
        return io.NodeOutput(guided, sigmas, {"samples": torch.zeros_like(guide)})


class UraeHiflow(_SecondPass):
    """A model that starts from the native picture and is guided by it."""

    title = "URAE guided: HiFlow"
    about = (
        "Takes the upscaled and sharpened native picture back to a noise level, and draws each step from there towards "
        "it. Sample by SamplerCustom with this model, these sigmas and this latent."
    )
    steps = 16

    @classmethod
    def options(cls) -> list[Any]:
        return [
            _start(0.783),
            _number("direction", 1.0, "Weight of the low frequencies' pull at the first step."),
            _number("acceleration", 0.5, "Weight of the pull on the change of velocity at the first step."),
            _number(
                "cutoff", 0.2, "Where low frequencies end, as a share of the highest.", least=0.01, most=2.0
            ),
            _number(
                "sharpen",
                1.0,
                "How often the difference to a slight blur is added to the picture that is started from.",
                most=4.0,
            ),
        ]

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        native: dict,
        target: dict,
        steps: int,
        start_sigma: float,
        sharpen: float,
        **pull: Any,
    ) -> io.NodeOutput:
        family_of(model)
        reference = model.model.process_latent_in(_enlarged(model, vae, native, target))
        guided = _guided(model, Hiflow, reference, pull)
        sigmas = sigmas_below(start_sigma, shift=shift_of(guided), steps=steps)
        return io.NodeOutput(
            guided, sigmas, {"samples": _enlarged(model, vae, native, target, sharpen=sharpen)}
        )


class UraeExtension(ComfyExtension):
    """What ComfyUI asks this package for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            UraeAdapter,
            UraePolicy,
            UraePolicyJson,
            UraePolicyOfAdapter,
            UraeSdedit,
            UraeImax,
            UraeHiflow,
        ]


def _file() -> Any:
    return io.Combo.Input(
        "adapter", options=folder_paths.get_filename_list("loras"), tooltip="A file in the folder loras."
    )


def _number(
    name: str, default: float, tooltip: str, *, least: float = 0.0, most: float = 1.0, step: float = 0.01
) -> Any:
    return io.Float.Input(name, default=default, min=least, max=most, step=step, tooltip=tooltip)


def _start(default: float) -> Any:
    tooltip = "Noise level to which the picture is taken back; at 1 nothing of it is left."
    return _number("start_sigma", default, tooltip, least=0.001, step=0.001)


def _read(adapter: str) -> tuple[dict[str, Any], dict[str, str]]:
    path = folder_paths.get_full_path_or_raise("loras", adapter)
    return comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)


def _enlarged(model: Any, vae: Any, native: dict, target: dict, *, sharpen: float = 0.0) -> torch.Tensor:
    # Newer versions say how many pixels a latent of an empty one is, which may be another model's.
    own = 16 // family_of(model).token
    given = target.get("downscale_ratio_spacial") or own
    rows, columns = (round(side * given / own) for side in target["samples"].shape[-2:])
    return enlarged(native["samples"], (rows, columns), decode=vae.decode, encode=vae.encode, sharpen=sharpen)


def _guided(model: Any, method: type[Imax | Hiflow], guide: torch.Tensor, pull: dict[str, Any]) -> Any:
    """A clone of `model` whose velocity the method corrects."""
    guided = model.clone()
    patch = 2 // family_of(model).token
    guided.set_model_sampler_post_cfg_function(method(guide=guide, patch=patch, **pull))
    return guided
