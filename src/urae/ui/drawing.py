"""A model that stays open between jobs, drawn with as `urae generate` draws."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from urae.families import family_of, model_name
from urae.generation import DrawingRequest, ModelRequest, PictureFiles, plan_drawing
from urae.resolution import native_size, pixels_per_token
from urae.ui.preview import ColourMap, previews

__all__ = ["Studio"]


class Studio:
    """The page's model, opened anew only where a job names another adapter."""

    def __init__(self, model: ModelRequest) -> None:
        self.model = model
        self._open(model)

    @property
    def info(self) -> dict[str, Any]:
        """What pages need to know of the model."""
        pipe = self.pipe
        return {
            "name": model_name(pipe),
            "family": family_of(pipe).name,
            "native": native_size(pipe),
            "multiple": pixels_per_token(pipe),
            "negative": family_of(pipe).guidance.kind(pipe) == "cfg",
        }

    def close(self) -> None:
        """Put the pipeline back."""
        self._stack.close()

    def draw(
        self,
        model: ModelRequest,
        asked: DrawingRequest,
        out: Path,
        told: Callable[..., None],
        seen: Callable[[bytes], None],
    ) -> tuple[str, ...]:
        """Draw what is not there yet into `out`; the names of all pictures. `told` is given what changes in the job,
        and raises to stop it; `seen` is given previews."""
        if model != self._opened:
            self.close()
            self._open(model)
        whole = plan_drawing(self.pipe, replace(asked, adapter=self.adapter))
        files = PictureFiles(out, asked.prompts)
        plan = whole.only(files.missing(whole.made))
        there = tuple(path.name for path in files.there)
        begun, step = time.time(), 0
        told(state="drawing", begun=begun, step=0, num_steps=plan.num_steps, plan=str(plan), pictures=there)

        def stepped() -> None:
            nonlocal step
            step += 1
            told(step=step)

        def finished(image: Any) -> None:
            files.save(image)
            told(pictures=(*there, *(path.name for path in files.written)))

        with previews(self.pipe, self.colours, plan.size, seen):
            plan.run(on_step=stepped, on_image=finished)
        return (*there, *(path.name for path in files.written))

    def _open(self, model: ModelRequest) -> None:
        self._stack, self._opened = ExitStack(), model
        self.pipe, self.adapter = self._stack.enter_context(model.opened())
        self.colours = ColourMap(self.pipe)
