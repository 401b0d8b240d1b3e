"""Prompts of which images are drawn or collected: a list of the user's own, or some hundred of ours.

Where a list has ids, the pictures are called by them, so that whoever looks at them later finds each by its prompt.

The shipped ones (`prompts/*.txt`, one prompt a line) were written for this package, varied in subject and style, and
may be used like its code.
"""

from __future__ import annotations

from pathlib import Path

from urae.io.prompt_lists import PROMPT, read_prompt_list

__all__ = ["SHIPPED", "read_prompts", "shipped_prompts"]

SHIPPED = "shipped"
"""Names our own prompts in place of a file."""


def read_prompts(source: str | Path, *, column: str = PROMPT) -> list[str] | dict[str, str]:
    """The prompts of a list as `urae.io.read_prompt_list` reads it, or our own under the name "shipped"."""
    if source != SHIPPED:
        return read_prompt_list(source, column=column)
    if column != PROMPT:
        raise ValueError("column has no effect on the shipped prompts, which have no columns: leave it out")
    return shipped_prompts()


def shipped_prompts() -> list[str]:
    """Our own prompts, one subject after the other."""
    files = sorted((Path(__file__).parent / "prompts").glob("*.txt"))
    return [prompt for file in files for prompt in read_prompt_list(file)]
