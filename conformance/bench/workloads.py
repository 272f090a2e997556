"""What `gaugeblock bench kernels` times: the shapes, one line each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from gaugeblock.conformance.bench.timing import Mode


@dataclass(frozen=True)
class Workload:
    """One op at one shape, with the arguments of its ``Op.workload``.

    ``mode``: ``graph`` for a decode step, which an engine replays from a graph; its single launches are timed too, and
    are all that counts of an implementation that cannot be captured.
    """

    op: str
    label: str
    shape: dict[str, Any]
    mode: Mode = "launch"
    dtype: torch.dtype = field(default=torch.bfloat16)
    quick: bool = True

    @property
    def name(self) -> str:
        """The key of its budget."""
        return f"{self.op} {self.label}"


def _rows(op: str, rows: int, hidden: int, mode: Mode = "launch", *, quick: bool = True) -> Workload:
    return Workload(op, f"{rows}×{hidden}", {"rows": rows, "hidden": hidden}, mode, quick=quick)


def _linear(rows: int, mode: Mode = "launch") -> Workload:
    shape = {"rows": rows, "hidden": 4096, "columns": 16384, "activation": "gelu_tanh"}
    return Workload("ln_linear", f"{rows}×4096→16384 gelu_tanh", shape, mode)


def _int8(rows: int, mode: Mode = "launch", *, quick: bool = True) -> Workload:
    shape = {"rows": rows, "depth": 4096, "columns": 4096}
    return Workload("int8_linear", f"{rows}×4096→4096", shape, mode, quick=quick)


WORKLOADS: tuple[Workload, ...] = (
    _linear(4096),
    _linear(64, "graph"),
    _rows("add_rmsnorm", 16384, 4096),
    _rows("add_rmsnorm", 4096, 8192, quick=False),
    _rows("add_rmsnorm", 64, 4096, "graph"),
    _rows("silu_and_mul", 8192, 14336),
    _rows("silu_and_mul", 64, 14336, "graph"),
    _rows("gelu_and_mul", 8192, 14336, quick=False),
    _rows("gelu_and_mul", 64, 14336, "graph", quick=False),
    Workload("softmax", "4096×32000", {"rows": 4096, "columns": 32000}),
    Workload("softmax", "1024×128256", {"rows": 1024, "columns": 128256}),
    Workload("rope", "8192, 32+8 heads × 128", {"tokens": 8192, "q_heads": 32, "k_heads": 8, "dim": 128}),
    _int8(4096),
    _int8(16, "graph"),
    _int8(1, "graph", quick=False),
    Workload("decode_attention", "64 × 8192, GQA 32/8", {"rows": 64, "size": 8192}, "graph"),
    Workload("extend_attention", "2048 on 8192, GQA 32/8", {"tokens": 2048, "prefix": 8192}),
    Workload("sampling", "64×128256, top-k 50, top-p .9", {"rows": 64, "vocab": 128256}, "graph", torch.float32),
)


def workloads(ops: Collection[str] = (), *, quick: bool = False) -> Iterator[Workload]:
    """Yield the workloads, of some ops or of all; ``quick`` leaves out the second of two alike."""
    for workload in WORKLOADS:
        if (not ops or workload.op in ops) and (workload.quick or not quick):
            yield workload
