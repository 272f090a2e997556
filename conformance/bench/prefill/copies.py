"""How fast pages go between host and device, beside one copy of the same bytes: the ceiling that the link has."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gaugeblock.conformance.bench.prefill.models import kv_row
from gaugeblock.reference.engine._streamed_tiers import HostTier

ROUNDS = 7
PIECE = 1024  # tokens of one layer that go in one copy


@dataclass(frozen=True)
class Copies:
    """GB/s, medians over the rounds: to the device (``in``) and to the host (``out``)."""

    whole_in: float
    whole_out: float
    pages_in: float
    pages_out: float

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"pages to the device {self.pages_in:.1f} GB/s, {self.pages_in / self.whole_in:.0%} of one pinned copy; "
            f"to the host {self.pages_out:.1f} GB/s, {self.pages_out / self.whole_out:.0%}"
        )


def measure_copies(model: Any, tokens: int, rounds: int = ROUNDS) -> Copies:
    """Move the KV of ``tokens`` tokens both ways: as one pinned block, and piece by piece as a prefill does."""
    device, layers = model.device, model.config.num_hidden_layers
    rows = torch.zeros((tokens, *kv_row(model)), dtype=model.dtype, device=device)
    host = torch.zeros((layers, *rows.shape), dtype=rows.dtype, pin_memory=device.type == "cuda")
    whole = torch.zeros_like(host, device=device)
    tier = HostTier(device, tokens, PIECE)
    runs = [(start, min(start + PIECE, tokens)) for start in range(0, tokens, PIECE)]

    def pages_out() -> None:
        for layer in range(layers):
            for start, stop in runs:
                tier.store(layer, start, rows[start:stop])

    def pages_in() -> None:
        for layer in range(layers):
            for start, stop in runs:
                tier.load(layer, [(start, stop)], rows[start:stop])

    def rate(copy: Callable[[], object]) -> float:
        return host.nbytes / _seconds(copy, device, rounds) / 1e9

    out = rate(pages_out)  # first: a page is stored before it is loaded
    found = Copies(
        rate(lambda: whole.copy_(host, non_blocking=True)),
        rate(lambda: host.copy_(whole, non_blocking=True)),
        rate(pages_in),
        out,
    )
    tier.close()
    return found


def _seconds(copy: Callable[[], object], device: torch.device, rounds: int) -> float:
    seconds: list[float] = []
    for number in range(rounds + 1):
        _synchronize(device)
        started = time.perf_counter()
        copy()
        _synchronize(device)
        if number:  # the first one takes memory and warms up
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
