"""What a picture's file says about how it was made: ours in full, and as far as it is understood other tools' too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from urae.exports import lazily

if TYPE_CHECKING:
    from urae.provenance.files import (
        claimed_provenance,
        facts_of,
        made_texts,
        read_maker,
        read_png_metadata,
        save_picture,
        save_png,
    )
    from urae.provenance.foreign import Foreign
    from urae.provenance.record import AdapterUse, Provenance, versions

__getattr__, __dir__, __all__ = lazily(__name__)
