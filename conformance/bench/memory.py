"""Memory of a fused op beside its unfused composition: the measured peak, and the bytes that either moves."""

from __future__ import annotations

from dataclasses import dataclass

from gaugeblock.conformance.bench.measure import Shape
from gaugeblock.conformance.bench.traffic import composition_bytes
from gaugeblock.conformance.bench.workloads import Workload
from gaugeblock.kernels.contract import Op


@dataclass(frozen=True)
class Memory:
    """One op at one shape. Peaks are what a call holds above its inputs, in bytes; None where nothing was measured.

    ``fused_bytes`` is the contract's model. ``eager_bytes`` counts each operator of PyTorch's composition: its inputs
    read once, its results written once.
    """

    op: str
    label: str
    fused_peak: int | None
    eager_peak: int | None
    fused_bytes: int
    eager_bytes: int
    eager_operators: int


def memory_of(op: Op, workload: Workload, shape: Shape, device: str) -> Memory:
    """Return the memory of the first entry and of eager at a shape that was measured."""
    eager = shape.entry("eager")
    counted = composition_bytes(op.eager, op.workload(device, workload.dtype, **workload.shape))
    return Memory(
        op.name,
        workload.label,
        shape.entries[0].peak_bytes,
        eager.peak_bytes if eager else None,
        shape.bytes_moved,
        counted.total,
        counted.launches,
    )
