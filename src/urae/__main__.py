"""`python -m urae` is `urae`, also where that is not on the path, as under `torchrun -m urae`."""

from urae.cli import app

app(prog_name="urae")
