"""`python -m urae` is `urae`, also where that is not on the path."""

from urae.cli import app

if __name__ == "__main__":
    app(prog_name="urae")
