"""What the device can do at best, measured in the same run: a large copy, and a large matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

REPEATS = 5


@dataclass(frozen=True)
class Ceilings:
    """``copy_gb_s``: bytes read plus written a second / 1e9 by a copy far larger than any cache. ``gemm_tflop_s``: a
    square product in the model's dtype, / 1e12. ``device``: the name of what was measured.
    """

    device: str
    copy_gb_s: float
    gemm_tflop_s: float
    dtype: str

    def floor_us(self, moved: int, flops: int = 0) -> float:
        """Return the least time for so many bytes and operations."""
        return max(moved / self.copy_gb_s / 1e3, flops / self.gemm_tflop_s / 1e6)

    def describe(self) -> dict[str, Any]:
        """Return the ceilings as JSON."""
        return {
            "device": self.device,
            "copy_gb_s": round(self.copy_gb_s, 2),
            "gemm_tflop_s": round(self.gemm_tflop_s, 4),
            "dtype": self.dtype,
        }


def measure_ceilings(device: str, dtype: torch.dtype) -> Ceilings:
    """Measure both; the fastest of a few repeats each, since a ceiling is what was reached once.

    A 1 GiB copy and 8192³ on a GPU (less when little memory is free), 256 MiB and 1024³ on a CPU.
    """
    size, side = (2**30, 8192) if device == "cuda" else (2**28, 1024)
    if device == "cuda":
        free = torch.cuda.mem_get_info()[0]
        while size > 2**26 and 2 * size + 3 * side * side * dtype.itemsize > free // 2:
            size, side = size // 2, max(side // 2, 2048)
    copy_s = _copy_seconds(device, size)
    gemm_s = _gemm_seconds(device, side, dtype)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return Ceilings(name, 2 * size / copy_s / 1e9, 2 * side**3 / gemm_s / 1e12, str(dtype).removeprefix("torch."))


def _copy_seconds(device: str, size: int) -> float:
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return _fastest(device, lambda: target.copy_(source))


def _gemm_seconds(device: str, side: int, dtype: torch.dtype) -> float:
    a = torch.randn(side, side, dtype=dtype, device=device)  # zeros and ones draw less power and clock higher
    b = torch.randn_like(a)
    out = torch.empty_like(a)
    return _fastest(device, lambda: torch.mm(a, b, out=out))


def _fastest(device: str, call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of a few calls, by events on a GPU."""
    call()
    times = []
    for _ in range(REPEATS):
        if device == "cuda":
            times.append(_on_gpu(call))
        else:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return min(times)


def _on_gpu(call: Callable[[], Any]) -> float:
    begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call] # PyTorch ships no type for it
    end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call] # the same
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
