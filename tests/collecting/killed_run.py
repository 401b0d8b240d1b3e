"""Processes that are going to be killed: what they run, and how they start in milliseconds."""

from __future__ import annotations

import os
import time
from typing import Any

from processes import CONTEXT
from urae.collecting import Captioner, FluxProUltra, caption, collect


def run_collect(url: str, out: str, prompts: list[str], key: str) -> None:
    os.environ["BFL_API_KEY"] = key
    teacher = FluxProUltra(base_url=url, poll_every=0.01, rate=6e4, timeout=20.0, grace=0.0, concurrency=4)
    collect(prompts, teacher, out, pause=0.01, retries=30)


def run_caption(url: str, manifest: str) -> None:
    caption(manifest, Captioner(model="toy", base_url=url, retries=0), concurrency=2)


def process(target: Any, *arguments: Any) -> Any:
    """A process under way."""
    started = CONTEXT.Process(target=target, args=arguments)
    started.start()
    return started


def kill_when(started: Any, condition: Any) -> bool:
    """Whether the process had to be killed; False where it came to its end before."""
    wait_for(lambda: condition() or not started.is_alive())
    alive = started.is_alive()
    started.kill()
    started.join()
    return alive


def wait_for(condition: Any, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)
