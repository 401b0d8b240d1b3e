"""Caching in processes of their own, to be shared and to be killed."""

from __future__ import annotations

import os
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from diffusers import FluxPipeline

from processes import CONTEXT
from urae.data import make_cache, write_shards


def run(pipe: Path, images: Path, out: Path, rank: int = 0, num: int = 1, port: int = 0) -> None:
    """What a process does: its share of a cache and of the shards; the main one writes its report."""
    if num > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(num), "ACCELERATE_USE_CPU": "true"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    report = make_cache(FluxPipeline.from_pretrained(pipe), images, out, size=64)
    if num > 1:
        write_shards(report.cache, f"file://{out}-shards", shard_bytes=20_000)
    (out / f"report-{rank}.txt").write_text(f"{report.num_encoded} {report.num_embedded} {report.num_bytes}")


def started(*arguments: object) -> BaseProcess:
    process = CONTEXT.Process(target=run, args=arguments)
    process.start()
    return process


def killed_at(process: BaseProcess, entries: Path, num: int) -> bool:
    """Send SIGKILL when so many entries are there; whether it came before the process was done."""
    while process.is_alive() and len(list(entries.glob("*.safetensors"))) < num:
        time.sleep(0.001)
    process.kill()
    process.join()
    return process.exitcode != 0


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
