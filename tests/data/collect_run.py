"""What a process that is going to be killed runs: imports little, so that it is soon at work."""

from __future__ import annotations

import os

from urae.data.collect import collect
from urae.data.teachers import FluxProUltra


def run(url: str, out: str, prompts: list[str], key: str) -> None:
    os.environ["BFL_API_KEY"] = key
    teacher = FluxProUltra(base_url=url, poll_every=0.01, rate=6e4, timeout=20.0, grace=0.0, concurrency=4)
    collect(prompts, teacher, out, pause=0.01, retries=30)
