"""What is asked of a model, before any is opened: the fields are also the options of `urae generate` and its like.

A request is checked when it is made, and all that was given as text is then what the text stands for. Nothing here
imports torch, so that a command line can be shown without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from urae import adapters, execution, families, generation
from urae.execution.choices import BaseWeights, Compile, Offload, VaeWay
from urae.generation import methods
from urae.generation.policies import policy_named
from urae.generation.seeds import seeds_of
from urae.resolution import check_size, size_named

if TYPE_CHECKING:
    from PIL.Image import Image

    from urae.adapters import Adapter, AdapterFile, Stack
    from urae.execution import MemoryPlan
    from urae.execution.caches import StepCache
    from urae.generation.methods import Method
    from urae.resolution import ResolutionPolicy, Size

__all__ = ["DrawingRequest", "ModelRequest"]


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """Which model draws, and how its weights are held."""

    model: str = "mini"
    """mini, a diffusers folder, a .safetensors file (with --base) or a hub id."""
    base: str = ""
    """Folder or hub id with the other parts of a single file."""
    adapter: Path | Sequence[Path] | None = None
    """Adapter file of any layout, FILE or FILE:STRENGTH; repeat for several that act together."""
    start: Path | None = None
    """Adapter that was fused before this one's training."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What the model computes in."""
    base_weights: BaseWeights = "as_loaded"
    """How the transformer holds its matrices: as they were loaded, or rounded."""

    def __post_init__(self) -> None:
        if self.start and not self.adapter:
            raise ValueError(f"start {self.start} has no effect without an adapter: give one with --adapter")

    @property
    def adapter_files(self) -> list[AdapterFile]:
        """The files, each with its strength."""
        files = [] if self.adapter is None else _several("adapter", self.adapter)
        return [adapters.AdapterFile.of(text) for text in files]

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, Adapter | Stack | None]]:
        """The pipeline, its matrices stored as asked, and the adapters, which have seen them as they were loaded."""
        files = self.adapter_files
        pipe = execution.first_here(
            lambda: families.open_pipeline(self.model, base=self.base, dtype=self.dtype)
        )
        pipe.set_progress_bar_config(disable=True)
        adapter = adapters.load_adapters(files, base=pipe, start=self.start)
        rounded = self.base_weights != "as_loaded"
        with execution.quantised(pipe, self.base_weights) if rounded else nullcontext():  # type: ignore[arg-type]
            yield pipe, adapter


@dataclass(frozen=True, kw_only=True)
class DrawingRequest:
    """Which pictures are to be made, and how: a picture of every prompt with every seed.

    `adapter`, `policy`, `steps` and `guidance` are those of the pass at this size. A two-pass method starts from a
    picture at native size: `native`, else one is made without the adapter. Raises ValueError for a value out of range
    and for a setting that would have no effect.
    """

    prompt: str | Sequence[str]
    """What to draw."""
    negative: str = ""
    """What the pictures should not show, the same for all; an error where the model takes no negative prompt."""
    size: str | int | Sequence[int]
    """WIDTHxHEIGHT in pixels, multiples of 16."""
    method: str | Method = "direct"
    """One of direct, tiled, sdedit, imax, hiflow, esrgan."""
    settings: tuple[str, ...] = field(default=(), metadata={"option": "--set"})
    """An option of the method, as name=value; repeat for several."""
    adapter: Adapter | Stack | Sequence[Adapter | tuple[Adapter, float]] | None = None
    """What was trained for this model, or several that act together, each alone or with a strength; the policy of the
    one that has one is used unless another is asked for."""
    policy: str | Path | ResolutionPolicy = "auto"
    """auto (the adapter's, else one for the size), none (stock behaviour), reference, or a JSON file."""
    steps: int | Literal["auto"] = "auto"
    """Denoising steps at this size; auto: the method's."""
    guidance: float | Literal["auto"] = "auto"
    """Guidance scale at this size; auto: the method's with FLUX.1, else the model's usual one."""
    seed: str | int | Sequence[str | int] = 0
    """Seed of the noise: a number, or several as 0-7 or 1,4,10-12."""
    native: Path | str | Image | Sequence[Path | str | Image] | None = None
    """Picture to start from; one for all or one for each image."""
    natives: Path | str | None = None
    """Folder that keeps the native pictures of two-pass methods."""
    memory: MemoryPlan | Literal["auto"] = "auto"
    """A plan of your own for where the model lies; auto chooses one by the two settings below."""
    offload: Literal["auto"] | Offload = "auto"
    """Where the model lies: as it is, all on the device, one part or one layer at a time."""
    decode: Literal["auto"] | VaeWay = "auto"
    """How the VAE makes the picture."""
    speed: str | StepCache = "exact"
    """exact, fast, or a cache, taylorseer or first-block, with settings: taylorseer:interval=3."""
    compile: Compile = "auto"
    """Compile the transformer's blocks; auto: where it pays."""
    context_parallel: int = 1
    """Under torchrun: processes that draw each picture together."""

    def __post_init__(self) -> None:
        way = self.method
        if isinstance(way, str):
            way = methods.method_from_texts(way, list(self.settings))
        elif self.settings:
            raise ValueError(
                f"the setting {self.settings[0]!r} has no effect on a method that is made already"
            )
        given = {
            "size": _named_size(self.size),
            "method": way,
            "settings": (),
            "policy": policy_named(self.policy),
            "adapter": self.adapter and adapters.one_or_stack(self.adapter),
            "seed": seeds_of(self.seed) if isinstance(self.seed, (str, Sequence)) else self.seed,
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        _check_values(self)
        _check_effects(self, way)

    @property
    def prompts(self) -> list[str]:
        """One or several, as a list."""
        return _several("prompt", self.prompt)

    @property
    def seeds(self) -> list[int]:
        """One or several, as a list."""
        return _several("seed", self.seed)

    @property
    def is_for_one(self) -> bool:
        """Whether one picture was asked for, and not a list of one."""
        return not (_is_list(self.prompt) or _is_list(self.seed))

    @property
    def num_steps(self) -> int:
        """Denoising steps at this size."""
        return self.method.steps if self.steps == "auto" else self.steps  # type: ignore[union-attr]

    def natives_for(self, num: int) -> list[Any]:
        """The native pictures that were given, one for each of `num` images; ValueError for another number."""
        several = _several("native", self.native)
        pictures = several * (num if len(several) == 1 else 1)
        if len(pictures) != num:
            raise ValueError(
                f"there are {len(pictures)} native pictures for {num} images: "
                "give one for each, all seeds of the first prompt first, or one for all"
            )
        return pictures


def _named_size(size: str | int | Sequence[int]) -> Size:
    return check_size(size_named(size))


def _check_values(asked: DrawingRequest) -> None:
    """What no picture can have; the rest is checked where the pictures' own requests and plans are made."""
    if asked.steps != "auto" and asked.steps < 1 and asked.method.steps:  # type: ignore[union-attr]
        raise ValueError(f"steps is {asked.steps}: expected 1 or more")
    for name, choices in (("offload", get_args(Offload)), ("decode", get_args(VaeWay))):
        if (value := getattr(asked, name)) not in ("auto", *choices):
            raise ValueError(f"{name} is {value!r}: expected one of auto, {', '.join(choices)}")
    if asked.compile not in (True, False, "auto"):
        raise ValueError(f"compile is {asked.compile!r}: expected True, False or 'auto'")
    if asked.memory != "auto" and (asked.offload, asked.decode) != ("auto", "auto"):
        raise ValueError("offload and decode have no effect beside a memory plan of your own: leave them out")


def _check_effects(asked: DrawingRequest, way: Method) -> None:
    """Refuse what the method leaves without an effect."""
    if way.steps == 0:
        _check_not_denoising(asked, way)
    has_native = asked.native is not None
    if not isinstance(way, generation.TwoPass):
        if has_native or asked.natives is not None:
            raise ValueError(f"a native picture has no effect with the {way.name} method: leave it out")
    elif has_native and way.needs_path:
        raise ValueError(
            f"{way.name} follows the native pass step by step, which a given picture cannot show: leave native "
            "out, or set the method's reference to 'picture'"
        )
    elif has_native and asked.natives is not None:
        raise ValueError("natives has no effect where the native pictures are given: leave one out")


def _check_not_denoising(asked: DrawingRequest, way: Method) -> None:
    """A method without a denoising pass at the target size leaves nothing to the settings of that pass."""
    if asked.decode != "auto":
        raise ValueError(
            f"decode has no effect with the {way.name} method, whose VAE sees the native picture alone: leave it out"
        )
    neutral = {"adapter": None, "policy": "auto", "steps": "auto", "guidance": "auto", "speed": "exact"}
    given = [name for name, value in neutral.items() if getattr(asked, name) != value]
    given += ["context_parallel"] * (asked.context_parallel > 1) + ["compile"] * (asked.compile is True)
    given += ["negative"] * (asked.negative != "" and asked.native is not None)
    if given:
        raise ValueError(
            f"{given[0]} has no effect with the {way.name} method, which does not denoise at the target size: "
            "leave it out"
        )


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def _several(name: str, values: Any) -> list[Any]:
    several = list(values) if _is_list(values) else [values]
    if not several:
        raise ValueError(f"{name} is an empty list: expected at least one")
    return several
