"""Copies between a device's memory and the host's, beside the computation.

On CUDA a copy runs on a stream of its own, to or from page-locked memory. It begins when everything that was asked
of the device before it is done, so that its source is complete and nothing still uses the memory of its target;
and what is computed after `Copy.arrived` waits for it. On any other device a copy is there at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SMALL", "Carrier", "Copy"]

SMALL = 2**20
"""Bytes below which moving a tensor costs more than it saves."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A tensor on its way."""

    source: Tensor
    target: Tensor
    event: torch.cuda.Event | None
    """After the copy; None where it is there at once."""

    def arrived(self) -> Tensor:
        """The target; what is computed from here on waits until it is complete. Until then both ends must be
        held."""
        if self.event is not None:
            self.event.wait()
        return self.target


class Carrier:
    """Copies between the memory of `device` and the host's, in the order in which they are asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def to_host(self, tensor: Tensor) -> Copy:
        """Begin to copy a tensor into page-locked memory."""
        return self._begin(
            tensor, torch.empty_like(tensor, device="cpu", pin_memory=self._stream is not None)
        )

    def to_device(self, tensor: Tensor) -> Copy:
        """Begin to copy a tensor of the host's memory to the device."""
        return self._begin(tensor, torch.empty_like(tensor, device=self.device))

    @torch.no_grad()
    def _begin(self, source: Tensor, target: Tensor) -> Copy:
        source = source.detach()
        if self._stream is None:
            target.copy_(source)
            return Copy(source=source, target=target, event=None)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            return Copy(source=source, target=target, event=self._stream.record_event())
