"""The contract between a model family and everything else: one `Family`, in eight parts.

A family is a folder, and each part is the file of its name in it. A part holds no weights and no state: it is told
the pipeline or the transformer at each call, so that one object serves a model, its adapted form and its teacher
alike. Latents are always *normalised*, that is, as the transformer sees them: unit variance or thereabouts. They are
(B, C, H, W) everywhere, whatever form the transformer takes them in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

__all__ = [
    "ATTENTION",
    "SIDE",
    "Axis",
    "Calls",
    "Drawing",
    "Embeddings",
    "Exchange",
    "Family",
    "Guidance",
    "Guiding",
    "Latents",
    "LayerUse",
    "Layers",
    "Masking",
    "ModuleNames",
    "Pipelines",
    "Posterior",
    "Rotary",
    "RotaryCall",
    "Schedule",
    "Size",
    "Stream",
    "Text",
]

Size = tuple[int, int]
"""(width, height) in pixels."""

SIDE = 16
"""What the sides of images in a data set are multiples of, in pixels, so that every family here can use it. A model's
own multiple is `Latents.pixels_per_token`."""

ATTENTION = "attention"
"""Name of the product of all tokens with all, beside those of layers."""

Embeddings = Mapping[str, "Tensor"]
"""What the text encoders say about a batch of prompts: tensors of batch first, under the names by which the
stock pipeline takes them. Where it takes a list of tensors of several lengths, they are one padded tensor here with a
mask beside it, and the family cuts them where it calls the pipeline or the transformer."""

Stream = Literal["text", "image"]
"""A kind of tokens. Where processes share them, each kind is shared out by itself."""

Role = Literal["row", "column", "other"]
"""What positions along an axis count: rows or columns of image tokens, or something that is not spatial."""

Guiding = Literal["embedded", "cfg", "none"]
"""How the guidance scale takes effect: as an input of the transformer; by a second call with a negative prompt
(classifier-free guidance); not at all."""


Masking = Literal["none", "keys", "pairs"]
"""What attention is given beside queries, keys and values: nothing; a mask of the keys; a mask of all pairs of tokens,
in the type that is computed in."""


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """What the VAE says about a batch of images: a Gaussian over normalised latents, both (B, C, H, W),
    fp32."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A clean latent, from standard normal `noise` of the same shape."""
        return self.mean + self.std * noise


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the rotary embedding."""

    channels: int
    """Of a head, an even number; each pair has one frequency."""
    theta: float
    """Base of the frequencies, theta^(-2i / channels)."""
    role: Role


@dataclass(frozen=True, kw_only=True)
class RotaryCall:
    """What one call of the stock rotary object asks for."""

    positions: Tensor
    """(tokens, axes), as the object was given them."""
    num_tokens: int | Tensor
    """L, all tokens that attend to each other, text and image; (tokens,) where samples of one call differ in it."""
    is_image: Tensor | None = None
    """Which tokens (tokens,) are the image's, to which alone the policy's rules apply; None where all others stand at
    row 0 and column 0, where no rule changes anything."""
    text_offset: float = 0.0
    """Where the text begins on all axes, if that moves with the size of the image: under a policy that changes
    positions it begins at this by the scale."""
    scale: float = 1.0
    """How much larger than native the image is, 1 or more, for a policy that does not say it; where text moves."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One call of a stock pipeline, in words that every family understands."""

    prompt: str | Embeddings
    """Text, or what `Text.encode` gives for it, of batch 1."""
    negative: str | Embeddings
    """Negative prompt; empty for none."""
    size: Size
    guidance: float
    """Guidance scale; 1 is none. At a model that takes none it has no effect."""
    steps: int
    settings: Mapping[str, Any]
    """`generator`, `callback_on_step_end` and the like, which all stock pipelines call the same."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A module at which processes that share an image's tokens exchange tensors, and the method of
    `urae.execution.token_sharing.TokenSharing` that does it."""

    module: nn.Module
    streams: tuple[Stream, ...] = ()
    """Kinds of tokens in the tensor, in their order."""
    before: str = ""
    """What is done to the module's input."""
    after: str = ""
    """What is done to the module's output."""
    argument: str = ""
    """Name of the input, where it is no positional one."""
    parts: tuple[int, ...] = ()
    """Widths of what lies side by side in the tensor, each of which has something of all heads; one where not given."""
    counts: tuple[str, ...] = ()
    """The module's attributes that count heads, of which a process has only some."""


@dataclass(frozen=True)
class LayerUse:
    """A linear layer, or attention, at its place in a forward pass."""

    name: str
    """Of the layer; `attention` for the product of all tokens with all."""
    stream: Literal["image", "text", "joint", "one"]
    """What flows through it: image tokens, text tokens, both, or one vector an image."""
    gradient: bool
    """Whether its input depends on a trained parameter."""
    recomputed: bool = False
    """Whether it lies in a block whose backward pass needs its activations."""
    vectors: int = 1
    """How many flow through it for each token or image. In attention these see each other, and no other token."""
    width: int = 0
    """Of attention: its own, where it is not that of a token inside the blocks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModuleNames:
    """A transformer's modules under their names in the model's original repository, which other tools use. Of a norm,
    whose weight the original calls otherwise, the parameter stands there instead."""

    top: Mapping[str, str]
    """Original name -> diffusers name, outside the blocks."""
    blocks: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]
    """Original list of blocks -> diffusers list, and in a block: original module -> the diffusers modules it fuses."""
    swapped: str
    """The module whose output the original has in halves of the other order; empty for none."""
    mlp_ratio: int
    """Width of a fused MLP over the hidden size: rows that a file without it leaves zero."""
    lost_by_stock: Mapping[str, tuple[str, ...]]
    """The other tools' layouts of adapters that diffusers reads too, kohya and comfy, and patterns of the diffusers
    modules that it leaves out of them, or misreads."""
    ratios: Mapping[str, float] = field(default_factory=dict)
    """Rows over columns of original modules that have another shape in a family of the same names."""


class Rotary(Protocol):
    """`rotary.py`: where the tables of the rotary position embedding are made, and what each axis means."""

    @property
    def attribute(self) -> str:
        """Name under which the transformer holds the object that makes them."""

    def axes(self, transformer: Any) -> tuple[Axis, ...]:
        """The axes, in the order of a position's coordinates. `ValueError` for a variant that is not understood."""

    @property
    def theta_scale(self) -> float:
        """Factor on theta of the default policy above the native size: theta^(1/4) lowers each wavelength as the
        paper's 10 does at FLUX.1's theta of 10,000 (docs/concepts/models.md)."""

    @property
    def needs_inputs(self) -> bool:
        """Whether `call` must be told something about the transformer's own inputs."""

    def told(self, inputs: Mapping[str, Any]) -> Any:
        """What that is, from the transformer's inputs by name. Made anew for each call of the transformer, so that it
        may tell several calls of the stock object apart. `ValueError` for inputs that no policy can follow."""

    def call(self, *inputs: Any, told: Any = None, **named: Any) -> RotaryCall:
        """What a call of the stock object with these inputs asks for; `told` is None where nothing needs to be."""

    def restored(self, positions: Tensor) -> Tensor:
        """Positions (tokens, axes) without the rounding that they met on their way to the object; fp32. Positions
        that are no rounded grid are returned as they are."""

    def frequencies(self, axis: Axis, *, theta_scale: float, device: Any) -> Tensor:
        """Frequencies (channels / 2,) of an axis at theta x `theta_scale`, in the stock object's own arithmetic."""

    def tables(self, angles: Tensor, factors: Tensor | float, call: RotaryCall) -> Any:
        """What the stock object returns for a call, at angles (tokens, pairs of channels): cos and sin, or complex
        numbers, times `factors`, a number or (1 or tokens, 1 or pairs)."""


class Calls(Protocol):
    """`calls.py`: one call of the transformer."""

    def velocity(
        self,
        transformer: Any,
        noisy: Tensor,
        *,
        sigma: Tensor,
        embeddings: Embeddings,
        guidance: float | None = None,
    ) -> Tensor:
        """The predicted velocity (noise - clean) at noisy latents (B, C, H, W) and sigma (B,) in [0, 1], fp32.
        guidance: the scale where it is embedded, else None."""

    def sigma(self, inputs: Mapping[str, Any]) -> Tensor:
        """The noise level (B,) in [0, 1], from the transformer's inputs by name."""

    def latents(self, inputs: Mapping[str, Any], height: int, width: int) -> Tensor:
        """The noisy latents (B, C, H, W) in the transformer's inputs by name."""

    def num_image_tokens(self, inputs: Mapping[str, Any]) -> int:
        """Image tokens in the transformer's inputs by name, of all images together."""

    def velocity_in(self, output: Any, height: int, width: int) -> Tensor:
        """The velocity (B, C, H, W) in what the transformer returns for latents of this height and width."""

    def as_output(self, velocity: Tensor) -> Any:
        """The inverse of `velocity_in`."""

    def with_latents(self, inputs: Mapping[str, Any], latents: Tensor) -> dict[str, Any]:
        """The inputs for other latents, (n B, C, H, W) of any size: everything that belongs to an image n times."""

    def with_text_at(self, inputs: Mapping[str, Any], places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """The inputs with the text once for each place, (row, column) of an image token, at that place.
        `ValueError` where text has no such place."""


class Latents(Protocol):
    """`latents.py`: between pixels, latents and tokens."""

    def pixels_per_token(self, pipe: Any) -> int:
        """Side of an image token in pixels."""

    def native_size(self, pipe: Any) -> int:
        """Side in pixels of the images that the model was trained on."""

    def shape(self, pipe: Any, size: Size) -> tuple[int, int]:
        """(height, width) of the latents of an image of `size`."""

    def encode(self, pipe: Any, pixels: Tensor) -> Posterior:
        """The posterior of images (B, 3, H, W) in [-1, 1], on the CPU."""

    def decode(self, pipe: Any, clean: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] from clean latents, fp32."""

    def pack(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) as the scheduler's sample has them."""

    def unpack(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """The inverse of `pack`; height and width are those of the latents."""

    def noise(self, pipe: Any, size: Size, generator: Any, *, num: int = 1) -> Tensor:
        """The packed noise that the stock pipeline itself would start `num` images from."""

    def identity(self, pipe: Any) -> str:
        """Hash of what the latents of an image depend on."""

    def num_values(self, pipe: Any, size: int) -> int:
        """Numbers in the latents of a square image of this side, pixels."""


class Text(Protocol):
    """`text.py`: prompts and what the encoders make of them."""

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the pipeline's parts that encode text, tokenizers aside."""

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """Names of the pipeline's tokenizers."""

    def encode(self, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Text embeddings of the prompts, batch first, on the CPU. `ValueError` for a pipeline without encoders."""

    def num_tokens(self, pipe: Any) -> int:
        """Text tokens that the model attends to beside the image."""

    def identity(self, pipe: Any) -> str:
        """Hash of what the embeddings of a prompt depend on; "" for a pipeline without text encoders."""

    def num_values(self, pipe: Any) -> int:
        """Numbers in the embeddings of one prompt."""


class Guidance(Protocol):
    """`guidance.py`: what a guidance scale does."""

    def kind(self, target: Any) -> Guiding:
        """How it takes effect with this pipeline or transformer, of which the pipeline may know more."""

    def usual(self, target: Any, published: float) -> float:
        """The scale where nobody gives one; `published` is that of a method's authors, who drew with FLUX.1-dev."""

    def settings(self, drawing: Drawing) -> dict[str, Any]:
        """The stock pipeline's arguments for a guidance scale and a negative prompt. `ValueError` for a negative
        prompt where there is none."""


class Schedule(Protocol):
    """`schedule.py`: the timestep shift a, sigma -> a sigma / (1 + (a - 1) sigma)."""

    def shift(self, pipe: Any, size: Size, steps: int) -> float:
        """The shift that the stock pipeline will use at this size and number of steps."""

    def own_shift(self, pipe: Any, scheduler: Any) -> float:
        """The static shift that belongs to the checkpoint; `scheduler` is the one that the pipeline came with."""

    def static(self, scheduler: Any, shift: float) -> Any:
        """A scheduler like this one, with a static shift. `ValueError` for one that has none."""


class Layers(Protocol):
    """`layers.py`: the transformer's layers by their meaning."""

    @property
    def attention(self) -> tuple[str, ...]:
        """Patterns of the image stream's attention projections in all blocks, the published code's targets."""

    @property
    def wide(self) -> tuple[str, ...]:
        """Patterns of all linear layers that image tokens flow through inside the blocks."""

    @property
    def shared_inputs(self) -> tuple[tuple[str, ...], ...]:
        """Layers of a block, by the ends of their names, that have one tensor as their input."""

    @property
    def mask(self) -> Masking:
        """The mask that attention is given, which not every kernel takes."""

    def width(self, transformer: Any) -> int:
        """Channels of a token inside the blocks."""

    def heads(self, transformer: Any) -> tuple[int, int]:
        """Attention heads, and the channels of each."""

    def head_groups(self, transformer: Any) -> int:
        """Groups of heads that must stay together, all of the same size: those of queries with the head of keys and
        values that they share. As many as there are heads where none is shared."""

    def exchanges(self, transformer: Any) -> Iterable[Exchange]:
        """Where tensors change hands when several processes share the tokens of an image. `ValueError` where that is
        not known for this family."""

    def uses(self, transformer: Any, adapted: frozenset[str]) -> Iterator[LayerUse]:
        """Every linear layer and attention, in the order in which they run, when the `adapted` layers are trained."""

    def kept(self, block: str, *, copies: bool) -> float:
        """Widths per token that a block keeps for its backward pass, without those for adapters; `copies`: under
        autocast, where norms keep their inputs in fp32 and each adapted layer has a copy of its input."""


class Pipelines(Protocol):
    """`pipelines.py`: how the stock pipeline is opened and called."""

    def pipeline(self, index: Mapping[str, Any]) -> str:
        """Name of the text-to-image class in diffusers, for a pipeline's `model_index.json`."""

    @property
    def transformer(self) -> str:
        """Name of the transformer's class in diffusers."""

    @property
    def published(self) -> Mapping[str, Mapping[str, Any]]:
        """Configurations of published models by hub id, so that a plan needs no download: `transformer`, `vae`,
        `text_tokens` and `encoder_values`, the numbers in the text encoders; `pipeline`, settings of its own, where
        they matter."""

    def draw(self, pipe: Any, drawing: Drawing, **more: Any) -> Image.Image:
        """One image by the stock text-to-image pipeline; `more` are further arguments of its call, such as packed
        `latents` to start from and `sigmas`."""

    def redraw(
        self,
        pipe: Any,
        drawing: Drawing,
        picture: Image.Image,
        *,
        sigmas: Any,
        start_sigma: float,
        **region: Any,
    ) -> Image.Image:
        """One image from a picture of the same size, taken back to `start_sigma`; `sigmas` (steps,) are those to
        give to the pipeline, before its shift. `region`: a `mask` of that size, white where the picture is redrawn,
        for a family whose pipelines name a class for it as `inpaint`."""


class Family(Protocol):
    """One model family."""

    @property
    def name(self) -> str:
        """As messages, files and pages spell it."""

    @property
    def rotary(self) -> Rotary: ...

    @property
    def calls(self) -> Calls: ...

    @property
    def latents(self) -> Latents: ...

    @property
    def text(self) -> Text: ...

    @property
    def guidance(self) -> Guidance: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def layers(self) -> Layers: ...

    @property
    def names(self) -> ModuleNames | None:
        """`names.py`: the modules' original names; None where no tool has others than diffusers'."""

    @property
    def pipelines(self) -> Pipelines: ...
