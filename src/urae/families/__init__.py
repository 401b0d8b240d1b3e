"""The model families: a folder for each, with the same file names in it, behind one contract.

`urae.families.family` is the contract; `family_of` says which family a pipeline or a transformer is of. Nothing outside
this room knows a family's classes, parts, inputs or layers. What is exported is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.families.family import SIDE, Axis, Drawing, Embeddings, Exchange, Family, Posterior, Size
    from urae.families.opening import (
        DTYPES,
        Architecture,
        check_transformer,
        downloaded,
        model_name,
        open_architecture,
        open_encoders,
        open_pipeline,
        open_transformer,
    )
    from urae.families.registry import FAMILIES, families, family_named, family_of

__getattr__, __dir__, __all__ = lazily(__name__)
