"""What the card can do, measured in the same run: a device copy, and matrix products in bf16 and int8."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from gaugeblock.conformance.bench.timing import Call, Timer

COPY_BYTES = 2**30
SIDE = 8192
INT8_OPS = ("int8_linear",)


@dataclass(frozen=True)
class Ceilings:
    """``copy`` in bytes a microsecond, read plus written; ``gemm`` (bf16) and ``int8`` in operations a microsecond.

    The copy is measured again in every round of every shape, by ``copy_calls``, and where operations set the pace so is
    the product, by ``gemm_calls``: a card that is hot gives both less.
    """

    MULTIPLIED: ClassVar[int] = 2 * SIDE**3  # operations of the product
    COPIED: ClassVar[int] = 2 * COPY_BYTES  # bytes that a copy reads and writes

    copy: float
    gemm: float
    int8: float | None
    copy_calls: Sequence[Call]
    gemm_calls: Sequence[Call] = ()

    def int8_factor(self, op: str) -> float:
        """Return how far beyond the bf16 product an op may honestly get: the tensor cores do int8 at twice the rate."""
        return max(2.0, (self.int8 or 0.0) / self.gemm) if op in INT8_OPS else 1.0

    def as_json(self) -> dict[str, Any]:
        """Return it in GB/s and TFLOP/s."""
        int8 = None if self.int8 is None else round(self.int8 / 1e6, 1)
        return {"copy_gb_s": round(self.copy / 1e3, 1), "bf16_tflop_s": round(self.gemm / 1e6, 1), "int8_top_s": int8}


def measure_ceilings(timer: Timer, device: str) -> Ceilings:
    """Measure them; int8 is None where PyTorch's product is not to be had."""
    make = partial(torch.empty, COPY_BYTES, dtype=torch.uint8, device=device)
    pairs = [(make(), make().fill_(1)) for _ in range(2)]
    copy_calls = [partial(to.copy_, source) for to, source in pairs]
    copy = statistics.median(timer.samples(copy_calls, "launch"))
    operations = Ceilings.MULTIPLIED
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16) for _ in range(2))
    gemm_calls = [partial(torch.matmul, a, b)]
    gemm = statistics.median(timer.samples(gemm_calls, "launch"))
    ia, ib = (t.to(torch.int8) for t in (a, b))
    try:
        int8 = operations / statistics.median(timer.samples([partial(torch._int_mm, ia, ib.t())], "launch"))
    except RuntimeError:
        int8 = None
    return Ceilings(Ceilings.COPIED / copy, operations / gemm, int8, copy_calls, gemm_calls)
