"""What is trained: five frozen specifications behind one interface.

Nothing here touches a model. `attach` turns a spec into trainable parameters on a stock transformer. A target is a
pattern on module names: a glob ("attn.to_q", "*.attn.to_*"), or a regular expression after "re:". A pattern matches
a whole name or its last parts, so that "attn.to_q" means the query projection of every block. Two words stand for the
patterns of the model's family: "attention" and "image_stream".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

__all__ = ["IMAGE_STREAM", "PAPER_TARGETS", "SPECS", "Full", "Lora", "Major", "Mica", "Minor", "Spec"]

PAPER_TARGETS = ("attention",)
"""The image stream's attention projections of all blocks, as in the paper's published code, whatever the model's family
calls them; the text stream's own projections and the MLPs are left alone."""

IMAGE_STREAM = ("image_stream",)
"""All linear layers inside the blocks that image tokens flow through."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of the five specs."""

    kind: ClassVar[str] = ""

    targets: tuple[str, ...] = PAPER_TARGETS
    """Patterns on module names, or a word for them; each must match at least one linear layer."""

    def __post_init__(self) -> None:
        # The type says tuple, but this comes from files too.
        given: object = self.targets
        if not isinstance(given, list | tuple) or not all(isinstance(target, str) for target in given):
            raise ValueError(
                f"targets is {self.targets!r}: expected a list of patterns such as ['attention']"
            )
        if not self.targets:
            raise ValueError("targets is empty: name at least one pattern such as 'attention'")
        object.__setattr__(self, "targets", tuple(self.targets))

    def to_dict(self) -> dict[str, Any]:
        """Fields and the spec's kind, as JSON types."""
        return {"kind": self.kind, **asdict(self), "targets": list(self.targets)}

    @staticmethod
    def from_dict(settings: Mapping[str, Any]) -> Spec:
        """The spec that `to_dict` describes; unknown kinds and fields are refused."""
        settings = dict(settings)
        kind = settings.pop("kind", None)
        if not isinstance(kind, str) or kind not in SPECS:
            raise ValueError(f"adapter kind {kind!r} is unknown: valid kinds are {', '.join(SPECS)}")
        valid = [field.name for field in fields(SPECS[kind])]
        for name in settings:
            if name not in valid:
                raise ValueError(f"adapter {kind!r} has no {name!r}: valid settings are {', '.join(valid)}")
        return SPECS[kind](**settings)


@dataclass(frozen=True, kw_only=True)
class _LowRank(Spec):
    rank: int = 16
    """r, at most the smaller side of every targeted weight."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank is {self.rank!r}: expected a whole number of 1 or more, such as 16")


@dataclass(frozen=True, kw_only=True)
class _Scaled(_LowRank):
    alpha: float | Literal["rank"] = "rank"
    """The update is B A alpha / rank. "rank" keeps that factor at 1 whatever the rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numeric = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if self.alpha != "rank" and not (numeric and self.alpha > 0):
            raise ValueError(
                f"alpha is {self.alpha!r}: expected a number above 0, or 'rank' for alpha = rank"
            )

    @property
    def scaling(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha == "rank" else float(self.alpha) / self.rank


@dataclass(frozen=True, kw_only=True)
class Lora(_Scaled):
    """A from N(0, 1/r^2), B = 0 (Hu et al., 2022). The paper's "major" components, for synthetic data at 2K."""

    kind: ClassVar[str] = "lora"


@dataclass(frozen=True, kw_only=True)
class Minor(_LowRank):
    """A and B start from the r smallest singular triplets of W, and the difference is added:
    Y = X W + X (A B - A0 B0) (paper, Eqs. 5-6). For real data at 4K."""

    kind: ClassVar[str] = "minor"


@dataclass(frozen=True, kw_only=True)
class Major(_LowRank):
    """The same with the r largest triplets (PiSSA; Meng et al., 2024)."""

    kind: ClassVar[str] = "major"


@dataclass(frozen=True, kw_only=True)
class Mica(_Scaled):
    """B frozen at the r left singular vectors of the smallest singular values, A from 0
    (peft's ``init_lora_weights="mica"``; arXiv 2604.01694)."""

    kind: ClassVar[str] = "mica"


@dataclass(frozen=True, kw_only=True)
class Full(Spec):
    """Every parameter of the targeted modules, in fp32: full fine-tuning, as a baseline."""

    kind: ClassVar[str] = "full"

    targets: tuple[str, ...] = ("*",)
    """Patterns on the names of the modules that hold parameters; all of them by default."""


SPECS: dict[str, type[Spec]] = {spec.kind: spec for spec in (Lora, Minor, Major, Mica, Full)}
