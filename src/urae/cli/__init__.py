"""The command line: parse, call the public function, print where the result is."""

from __future__ import annotations

import os

# transformers warns at import that image processors want torchvision; nothing here uses one.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from urae.cli.main import app

__all__ = ["app"]
