"""Processes that find each other as those of `torchrun` do, on one machine, with gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from processes import CONTEXT


def start(num: int, function: Callable[..., None], *arguments: Any) -> list[multiprocessing.Process]:
    """`function(*arguments)` in this many processes, under way."""
    port = _free_port()
    processes = [
        CONTEXT.Process(target=_ranked, args=(num, rank, port, function, arguments)) for rank in range(num)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: list[multiprocessing.Process]) -> None:
    """Wait for all, none of which may have failed."""
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def _ranked(num: int, rank: int, port: int, function: Callable[..., None], arguments: Any) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    function(*arguments)


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
