"""The command line: parse, call the public function, print where the result is."""

from urae.cli.main import app

__all__ = ["app"]
