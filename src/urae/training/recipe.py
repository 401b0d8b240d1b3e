"""A recipe: everything that decides what a training run does, in one frozen object.

Recipes are made by the functions in `urae.recipes`, varied by keyword (`flux_2k(seed=1)`), by
`dataclasses.replace`, or on the command line by dotted keys (`adapter.rank=8`), and stored as YAML beside
their results. Every value is checked when the recipe is made; a setting that would have no effect is an
error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from urae import execution
from urae.adapters import Full, Spec
from urae.execution.choices import CHECKPOINTING, BaseWeights, Checkpointing, Compile
from urae.resolution import ResolutionPolicy, check_size
from urae.training.sigma import shift_at

__all__ = ["LOGGERS", "POLICIES", "Recipe"]

POLICIES = ("for_size", "reference", "native")
"""Names that `Recipe.policy` may hold instead of a policy."""

TRIGGER = "{trigger}"
"""Where the trigger stands in a sample prompt."""

LOGGERS = ("tensorboard", "wandb", "trackio")
"""Trackers that metrics go to beside metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train, on what, and how.

    The defaults are the paper's (Sec. 3.1) or, where it is silent, its published code's.
    """

    # What is trained, and at which size
    model: str
    """The model that the command line loads: "mini", a hub id, a folder or a file."""
    size: int
    """Side, px, of the square that has the images' area; images keep their shape, in buckets of this area."""
    adapter: Spec
    """What is trained: Lora, Minor, Major, Mica or Full."""
    start: str = ""
    """File of an adapter that is part of the base from the start on, such as the 2K adapter of a 4K one."""
    policy: ResolutionPolicy | str = "for_size"
    """How the model runs at `size`, in training and in drawing: a policy, "for_size" (the corrected default),
    "reference" (what the published 4K training does) or "native" (nothing changed: the published 2K training). As text
    also a policy's JSON file, such as `urae policy fit` writes."""

    # Data
    data: str
    """A folder of captioned images, a manifest (.jsonl), a cache or the URL of its shards; or several of these with
    their shares, as in "data/synthetic:0.7,data/real:0.3"."""
    cache: str = ""
    """Folder for the encoded data; by default beside the data, `data/2k.cache` for `data/2k`. No effect on results."""
    caption_mix: float = 0.2
    """Probability of the original caption, where a record has a detailed one too."""
    caption_dropout: float = 0.0
    """Probability of an empty caption instead of an image's own."""
    trigger: str = ""
    """A word that names the subject of your own pictures. It is put in front of captions that lack it, is the caption
    of pictures without one, and replaces {trigger} in sample prompts."""
    num_validation: int = 0
    """Records held out of training, for the validation loss."""
    num_workers: int = 0
    """Processes that read the cache ahead; 0 reads in the training process. No effect on results."""

    # Objective
    guidance: float = 1.0
    """The guidance scale that a guidance-distilled model is shown in training (paper, Sec. 2.4: 1 turns it
    off)."""
    sigma_sampling: Literal["uniform", "logit_normal"] = "uniform"
    """Distribution of the noise level in [0, 1], before the shift."""
    sigma_shift: float = 1.0
    """Shift of the noise level at the native size, towards noise above 1."""
    sigma_shift_rule: Literal["constant", "sqrt"] = "constant"
    """How the shift depends on the size: not at all, or times size / native size (the bounded square-root rule)."""
    flow_weight: float = 1.0
    """Weight of flow matching on the images (paper, Eq. 1)."""
    distill_weight: float = 0.0
    """Weight of the distance to a teacher's velocity (paper, Eq. 2)."""
    teacher: str = "base"
    """The teacher: "base" is the model as it starts, anything else a folder or hub id of a transformer."""
    teacher_guidance: float = 1.0
    """The guidance scale that the teacher is shown."""

    # Optimisation
    steps: int = 2000
    """Optimizer steps."""
    batch_size: int = 8
    """Images per optimizer step, over all processes and all parts of a split batch."""
    gradient_accumulation: int = 1
    """Parts into which each process splits its share of a batch, to save memory. No effect on the
    objective."""
    seed: int = 0
    """Seed of everything random in training, in [0, 2**32)."""
    optimizer: Literal["prodigy", "adamw"] = "prodigy"
    """Prodigy finds its own step size and wants lr 1."""
    lr: float = 1.0
    """Learning rate, constant."""
    weight_decay: float = 1e-4
    """Decoupled weight decay on the trained parameters."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the optimizer's first and second moments."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    ema: float = 0.0
    """Decay per step of a moving average of the trained parameters, which then is the result; 0 for none."""

    # Memory
    base_dtype: Literal["bf16", "fp32"] = "bf16"
    """What the frozen model computes in, whatever its weights are stored in. What is trained is fp32."""
    base_weights: BaseWeights = "as_loaded"
    """How the frozen matrices of the blocks are stored. "fp8" and "int8" take one byte a weight and "nf4" half a byte.
    Each rounds the weights, nf4 the most; they are restored for each product. "fp8_dynamic" is stored as "fp8" and
    multiplied in fp8, tokens and gradients rounded too. The adapter belongs to the unrounded base."""
    gradient_checkpointing: Checkpointing = True
    """What the backward pass computes again to save memory: true or "full" for all inside a block (about a
    third more work), "attention" for all but the results of attention (at 4096 px 7% more), false for nothing.
    No effect on results."""
    offload_activations: bool = False
    """Keep the activations that checkpointing saves in the host's memory; they come back before they are needed. On a
    GPU; no effect on results."""
    swap_blocks: int = 0
    """Blocks whose frozen weights stay in the host's memory and come to the GPU while their block runs; spread
    over the model. No effect on results."""
    context_parallel: int = 1
    """Processes that share the tokens of each image, so that each keeps a part of the activations; groups of so many
    share the batch. Their connection should be fast. No effect on results but rounding."""
    compile: Compile = False
    """Compile the transformer's blocks: a minute or so at the start, then faster steps; "auto" where all steps together
    save more than that. Results differ by rounding."""

    # While it runs
    out: str
    """The run's directory."""
    checkpoint_every: int = 200
    """Steps between checkpoints, 0 for one at the end only."""
    checkpoint_minutes: float = 30.0
    """A checkpoint is written at the latest after so many minutes, 0 for no such limit; 200 steps can take ten
    hours."""
    keep_checkpoints: int = 2
    """How many of the latest checkpoints stay."""
    validate_every: int = 0
    """Steps between validation losses, 0 for none."""
    sample_every: int = 0
    """Steps between sample images, 0 for none."""
    sample_prompts: tuple[str, ...] = ()
    """What the sample images show."""
    sample_steps: int = 28
    """Sampling steps of a sample image."""
    sample_guidance: float = 3.5
    """Guidance scale of the sample images."""
    loggers: tuple[str, ...] = ("tensorboard",)
    """Where metrics go beside metrics.jsonl: "tensorboard", "wandb", "trackio"."""

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_names(self)
        _check_effects(self)

    @property
    def shown_prompts(self) -> tuple[str, ...]:
        """What the sample images show, the trigger in its place."""
        return tuple(prompt.replace(TRIGGER, self.trigger) for prompt in self.sample_prompts)

    def images_at_a_time(self, num_processes: int) -> int:
        """Images on a GPU at a time when so many processes, a GPU each, share the batch; those that share an image's
        tokens count as one. `ValueError` where the batch cannot be dealt out."""
        groups = execution.num_groups(num_processes, self.context_parallel) if num_processes > 0 else 0
        if groups < 1 or self.batch_size % (groups * self.gradient_accumulation):
            whole = self.context_parallel == 1
            what = "processes or GPUs" if whole else f"groups of {self.context_parallel} processes or GPUs"
            step = max(groups, 1) * self.gradient_accumulation
            raise ValueError(
                f"batch_size is {self.batch_size}: expected a multiple of {what} x gradient_accumulation = "
                f"{groups} x {self.gradient_accumulation}, such as batch_size={-(-self.batch_size // step) * step}"
            )
        return self.batch_size // groups // self.gradient_accumulation

    @property
    def not_compiled_since(self) -> str:
        """Which other setting keeps the blocks from being compiled, and what to set instead; "" if none does."""
        if self.swap_blocks:
            return (
                f"swap_blocks is {self.swap_blocks} and compiled blocks hold their weights: expected 0 with "
                "compile=true, or compile=false"
            )
        if self.offload_activations and self.gradient_checkpointing == "attention":
            return (
                "compiled blocks keep the results of attention themselves, out of reach of offload_activations: set "
                "gradient_checkpointing=full, or compile=false"
            )
        if self.context_parallel > 1:
            return (
                f"context_parallel is {self.context_parallel}, which compiled blocks have not been shown to compute "
                "rightly: set compile=false, or context_parallel=1"
            )
        return ""


def _check_ranges(recipe: Recipe) -> None:
    check_size(recipe.size)
    at_least = {
        1: (
            "steps",
            "batch_size",
            "gradient_accumulation",
            "keep_checkpoints",
            "sample_steps",
            "context_parallel",
        ),
        0: (
            *("num_validation", "num_workers", "flow_weight", "distill_weight", "weight_decay", "clip_norm"),
            *("guidance", "teacher_guidance", "sample_guidance"),
            *("checkpoint_every", "checkpoint_minutes", "validate_every", "sample_every", "swap_blocks"),
        ),
    }
    for least, names in at_least.items():
        for name in names:
            _expect(recipe, name, getattr(recipe, name) >= least, f"{least} or more")
    for name in ("lr", "sigma_shift"):
        _expect(recipe, name, getattr(recipe, name) > 0, "a number above 0")
    _expect(recipe, "caption_dropout", 0 <= recipe.caption_dropout < 1, "a probability in [0, 1)")
    _expect(recipe, "caption_mix", 0 <= recipe.caption_mix <= 1, "a probability in [0, 1]")
    _expect(recipe, "ema", 0 <= recipe.ema < 1, "a decay in [0, 1), such as 0.999, or 0 for none")
    _expect(recipe, "num_workers", recipe.num_workers <= 256, "256 or fewer")
    _expect(recipe, "seed", 0 <= recipe.seed < 2**32, "a whole number in [0, 2**32)")
    _expect(recipe, "betas", all(0 <= beta < 1 for beta in recipe.betas), "two decay rates in [0, 1)")
    divides = recipe.batch_size % recipe.gradient_accumulation == 0
    _expect(recipe, "gradient_accumulation", divides, f"a divisor of batch_size ({recipe.batch_size})")
    shift_at(1.0, shift=recipe.sigma_shift, rule=recipe.sigma_shift_rule, distribution=recipe.sigma_sampling)


def _check_names(recipe: Recipe) -> None:
    for name in ("data", "out", "model"):
        _expect(recipe, name, getattr(recipe, name) != "", "not empty")
    modes = recipe.gradient_checkpointing in CHECKPOINTING
    _expect(recipe, "gradient_checkpointing", modes, "true, false, full or attention")
    known = isinstance(recipe.policy, ResolutionPolicy) or recipe.policy in POLICIES
    _expect(recipe, "policy", known, f"a ResolutionPolicy or one of {', '.join(POLICIES)}")
    _expect(recipe, "loggers", set(recipe.loggers) <= set(LOGGERS), f"names out of {', '.join(LOGGERS)}")


def _check_effects(recipe: Recipe) -> None:
    if recipe.flow_weight == recipe.distill_weight == 0:
        raise ValueError("flow_weight and distill_weight are both 0, which trains nothing: set one above 0")
    if recipe.distill_weight == 0 and (recipe.teacher != "base" or recipe.teacher_guidance != 1):
        raise ValueError("teacher and teacher_guidance have no effect at distill_weight 0: set it above 0")
    if recipe.flow_weight == 0 and (recipe.teacher, recipe.teacher_guidance) == ("base", recipe.guidance):
        raise ValueError(
            f"the teacher is the base at guidance {recipe.guidance:g}, which is how the run starts, and flow_weight is "
            "0, which trains nothing: set flow_weight above 0, or another teacher or teacher_guidance"
        )
    if (recipe.validate_every == 0) != (recipe.num_validation == 0):
        raise ValueError(
            f"validate_every={recipe.validate_every} and num_validation={recipe.num_validation} need each other: "
            "set both above 0, or neither"
        )
    if recipe.base_weights != "as_loaded" and isinstance(recipe.adapter, Full):
        raise ValueError(
            f"base_weights={recipe.base_weights} is for weights that stay frozen, and a full adapter trains them: set "
            "base_weights=as_loaded, or train another adapter"
        )
    if not recipe.trigger and (asking := [p for p in recipe.sample_prompts if TRIGGER in p]):
        raise ValueError(
            f"the sample prompt {asking[0]!r} asks for a trigger, and there is none: set trigger"
        )
    if recipe.sample_every and not recipe.sample_prompts:
        raise ValueError(f"sample_every={recipe.sample_every} needs sample_prompts: give at least one")
    _check_savers(recipe)


def _check_savers(recipe: Recipe) -> None:
    for name in ("offload_activations", "swap_blocks"):
        if getattr(recipe, name) and not recipe.gradient_checkpointing:
            raise ValueError(
                f"{name} saves nothing at gradient_checkpointing=false, where every block keeps everything that it "
                "computed with: set gradient_checkpointing=full or attention"
            )
    if recipe.compile is True and (obstacle := recipe.not_compiled_since):
        raise ValueError(f"compile is true and {obstacle}")


def _expect(recipe: Recipe, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {getattr(recipe, name)!r}: expected {expected}")
