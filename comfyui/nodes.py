"""The nodes, as ComfyUI's third schema has them: what they are called, take, give and explain."""

from __future__ import annotations

from typing import Any

import comfy.utils
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

from .guided import SCHEDULES, Imax, enlarged, sigmas_below
from .patching import apply_adapter, apply_policy, apply_shift, check_flux, shift_of
from .policy import ByHand, Policy, policy_of_metadata

__all__ = ["UraeExtension"]

CATEGORY = "urae"
BY_RULE = ["clip", "theta", "linear", "ntk", "yarn", "dype", "dype_ntk"]


class UraeAdapter(io.ComfyNode):
    """An adapter and the policy that it was trained under."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UraeAdapter",
            display_name="URAE adapter",
            category=CATEGORY,
            description="Loads an adapter and runs the model under the resolution policy that its file carries.",
            inputs=[
                io.Model.Input("model"),
                _file(),
                io.Float.Input("strength", default=1.0, min=-4.0, max=4.0, step=0.01),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, adapter: str, strength: float) -> io.NodeOutput:
        check_flux(model)
        tensors, metadata = _read(adapter)
        policy = policy_of_metadata(metadata, name=adapter)
        return io.NodeOutput(apply_policy(apply_adapter(model, tensors, strength, name=adapter), policy))


class UraePolicyOfAdapter(io.ComfyNode):
    """The policy of an adapter's file, without its weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UraePolicyOfAdapter",
            display_name="URAE policy of an adapter",
            category=CATEGORY,
            description="Runs the model under the resolution policy in an adapter's file, without its weights.",
            inputs=[io.Model.Input("model"), _file()],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, adapter: str) -> io.NodeOutput:
        return io.NodeOutput(apply_policy(model, policy_of_metadata(_read(adapter)[1], name=adapter)))


class UraePolicyJson(io.ComfyNode):
    """A policy as `urae` prints it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UraePolicyJson",
            display_name="URAE policy from JSON",
            category=CATEGORY,
            description="Runs the model under a resolution policy in JSON, as urae prints and writes it.",
            inputs=[
                io.Model.Input("model"),
                io.String.Input("policy", multiline=True, default='{"shift": 3.0}'),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, policy: str) -> io.NodeOutput:
        return io.NodeOutput(apply_policy(model, Policy.from_json(policy)))


class UraePolicy(io.ComfyNode):
    """A policy by hand."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UraePolicy",
            display_name="URAE policy",
            category=CATEGORY,
            description="Positions, attention and timestep shift above the native size, which is read from the latents "
            "that are sampled. At or below it only the shift acts.",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("rule", options=BY_RULE, tooltip="How the rotary frequencies are lowered."),
                io.Float.Input(
                    "rope_scale",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    tooltip="Factor on theta, for the rules clip and theta. 0: 10, or twice the scale if that is more.",
                ),
                io.Float.Input(
                    "scale",
                    default=0.0,
                    min=0.0,
                    max=64.0,
                    step=0.01,
                    tooltip="Size over native size. 0: from the latents.",
                ),
                io.Combo.Input(
                    "proportional",
                    options=["auto", "on", "off"],
                    tooltip="Proportional attention. auto: on above the native size, but for yarn and dype.",
                ),
                io.Float.Input(
                    "shift",
                    default=3.0,
                    min=0.01,
                    max=100.0,
                    step=0.01,
                    tooltip="Static timestep shift: 3 for FLUX.1-dev, 1 for schnell. The node ModelSamplingFlux means "
                    "its logarithm.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, **settings: Any) -> io.NodeOutput:
        return io.NodeOutput(apply_policy(model, ByHand(**settings)))


class UraeSdedit(io.ComfyNode):
    """The start of an SDEdit pass."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UraeSdedit",
            display_name="URAE guided: SDEdit",
            category=CATEGORY,
            description="Takes the upscaled native picture back to a noise level, to be denoised from there by "
            "SamplerCustom with these sigmas and this latent.",
            inputs=[
                *_two_passes(),
                io.Int.Input("steps", default=14, min=1, max=1000),
                io.Float.Input(
                    "start_sigma",
                    default=0.875,
                    min=0.001,
                    max=1.0,
                    step=0.001,
                    tooltip="Noise level to which the picture is taken back; at 1 nothing of it is left.",
                ),
            ],
            outputs=[io.Sigmas.Output(), io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls, model: Any, vae: Any, native: dict, target: dict, steps: int, start_sigma: float
    ) -> io.NodeOutput:
        guide = _enlarged(vae, native, target)
        return io.NodeOutput(
            sigmas_below(start_sigma, shift=shift_of(model), steps=steps), {"samples": guide}
        )


class UraeImax(io.ComfyNode):
    """A model that is guided by the native picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UraeImax",
            display_name="URAE guided: I-Max",
            category=CATEGORY,
            description="Draws the low frequencies of each step towards the upscaled native picture. Sample from fresh "
            "noise, by SamplerCustom with this model, these sigmas and this latent.",
            inputs=[
                *_two_passes(),
                io.Int.Input("steps", default=30, min=1, max=1000),
                io.Combo.Input(
                    "schedule", options=list(SCHEDULES), tooltip="How the pull changes over the steps."
                ),
                io.Float.Input(
                    "weight", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Factor on the pull."
                ),
                io.Int.Input(
                    "low_pass_level",
                    default=1,
                    min=0,
                    max=6,
                    tooltip="Averages over blocks of 2^level latents; 0 is all frequencies.",
                ),
                io.Float.Input(
                    "shift",
                    default=6.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    tooltip="Timestep shift of this pass, in place of the policy's. 0: the model's own.",
                ),
            ],
            outputs=[io.Model.Output(), io.Sigmas.Output(), io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls, model: Any, vae: Any, native: dict, target: dict, steps: int, shift: float, **pull: Any
    ) -> io.NodeOutput:
        check_flux(model)
        guide = model.model.process_latent_in(_enlarged(vae, native, target))
        guided = apply_shift(model, shift) if shift else model.clone()
        guided.set_model_sampler_post_cfg_function(Imax(guide=guide, **pull))
        sigmas = sigmas_below(1.0, shift=shift_of(guided), steps=steps)
        return io.NodeOutput(guided, sigmas, {"samples": torch.zeros_like(guide)})


class UraeExtension(ComfyExtension):
    """What ComfyUI asks this package for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [UraeAdapter, UraePolicy, UraePolicyJson, UraePolicyOfAdapter, UraeSdedit, UraeImax]


def _file() -> Any:
    return io.Combo.Input(
        "adapter", options=folder_paths.get_filename_list("loras"), tooltip="A file in the folder loras."
    )


def _two_passes() -> list[Any]:
    return [
        io.Model.Input("model"),
        io.Vae.Input("vae"),
        io.Latent.Input("native", tooltip="The finished latents of a pass at native size."),
        io.Latent.Input("target", tooltip="Empty latents of the size to be made; its size alone is used."),
    ]


def _read(adapter: str) -> tuple[dict[str, Any], dict[str, str]]:
    path = folder_paths.get_full_path_or_raise("loras", adapter)
    return comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)


def _enlarged(vae: Any, native: dict, target: dict) -> torch.Tensor:
    return enlarged(native["samples"], target["samples"], decode=vae.decode, encode=vae.encode)
