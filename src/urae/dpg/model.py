"""An image-text model of transformers as the model that answers, from a folder on this machine.

Chat models (LLaVA, Qwen-VL, InternVL and the like) are asked through their own chat template; question-answering
models (BLIP) take the bare question, as the benchmark's own mPLUG does. Greedy: the same question has one answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from urae.dpg.answerer import INSTRUCTION, Ask, ModelAnswer
from urae.errors import BadFile
from urae.metrics import LocalWeights

__all__ = ["LocalModel"]

MAX_TOKENS = 8
"""Of an answer: a yes or no, and what a template may put before it."""


@dataclass(frozen=True)
class LocalModel:
    """A folder with a model, its tokenizer and its image processor, in the layout of transformers."""

    attempts: ClassVar[int] = 1
    """Asked again it would say the same."""
    concurrency: ClassVar[int] = 1

    folder: Path
    device: str = "auto"
    """ "auto" is CUDA in bfloat16 where there is one, else the CPU in float32."""
    batch_size: int = 16
    """Questions about one picture answered together."""

    def __post_init__(self) -> None:
        if not (self.folder / "config.json").is_file():
            raise BadFile(f"{self.folder} has no config.json: expected the folder of an image-text model")

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def weights(self) -> LocalWeights:
        return LocalWeights(self.folder)

    @property
    def untrained(self) -> bool:
        """Whether its weights are random."""
        return self.weights.untrained

    @cached_property
    def identity(self) -> str:
        """Hash of its files, and the number format: rounding decides where yes and no are close."""
        return f"{self.name} {self.weights.sha256} {_dtype(self._device)} {INSTRUCTION}"

    @contextmanager
    def opened(self) -> Iterator[Ask]:
        """Load it. `BadFile` where the folder holds no model that writes answers."""
        network, processor = self._load()
        network.to(self._device).eval()
        answers = _visual_answers if _is_visual(network.config) else _chat_answers
        yield partial(self._ask, partial(answers, network, processor))

    @property
    def _device(self) -> str:
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _load(self) -> tuple[Any, Any]:
        # Here, not above: the import takes seconds, and a server needs none of it.
        from transformers import (
            AutoConfig,
            AutoModelForImageTextToText,
            AutoModelForVisualQuestionAnswering,
            AutoProcessor,
        )

        try:
            visual = _is_visual(AutoConfig.from_pretrained(self.folder))
            family = AutoModelForVisualQuestionAnswering if visual else AutoModelForImageTextToText
            network = family.from_pretrained(self.folder, dtype=_dtype(self._device), use_safetensors=True)
            processor = AutoProcessor.from_pretrained(self.folder)
        except (OSError, ValueError) as error:
            raise BadFile(f"{self.folder} cannot be read as an image-text model: {error}") from error
        if not visual and not getattr(processor, "chat_template", None):
            raise BadFile(
                f"{self.folder} has no chat template: expected a chat model, or a BLIP that answers questions"
            )
        processor.tokenizer.padding_side = "left"
        return network, processor

    def _ask(
        self, answers: Any, picture: Image.Image, questions: Sequence[str], attempt: int
    ) -> Iterator[ModelAnswer]:
        for start in range(0, len(questions), self.batch_size):
            for text in answers(picture, questions[start : start + self.batch_size]):
                yield ModelAnswer(text=text, model=self.name)


def _dtype(device: str) -> torch.dtype:
    return torch.float32 if device == "cpu" else torch.bfloat16


def _is_visual(config: Any) -> bool:
    return any(name.endswith("ForQuestionAnswering") for name in config.architectures or ())


def _visual_answers(
    network: Any, processor: Any, picture: Image.Image, questions: Sequence[str]
) -> list[str]:
    inputs = processor(
        images=[picture] * len(questions), text=list(questions), padding=True, return_tensors="pt"
    )
    return _decoded(network, processor, inputs, 0)


def _chat_answers(network: Any, processor: Any, picture: Image.Image, questions: Sequence[str]) -> list[str]:
    talks = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": picture},
                    {"type": "text", "text": f"{question} {INSTRUCTION}"},
                ],
            }
        ]
        for question in questions
    ]
    inputs = processor.apply_chat_template(
        talks,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding=True,
    )
    return _decoded(network, processor, inputs, inputs["input_ids"].shape[1])


@torch.inference_mode()
def _decoded(network: Any, processor: Any, inputs: Any, asked: int) -> list[str]:
    """What is written after the first `asked` tokens."""
    moved = inputs.to(network.device, network.dtype)
    written = network.generate(**moved, max_new_tokens=MAX_TOKENS, do_sample=False)
    return [
        text.strip()
        for text in processor.tokenizer.batch_decode(written[:, asked:], skip_special_tokens=True)
    ]
