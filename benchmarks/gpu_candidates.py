"""Other tiles and variants of the kernels, to see whether the shipped heuristics are still the best on a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from persistent_rmsnorm import persistent

from gaugeblock.fixtures.mutate import edit
from gaugeblock.kernels import add_rmsnorm, silu_and_mul

STREAMED = (  # what is read once may leave the cache first
    ("x_stride + col, mask=inside, other=0.0", 'x_stride + col, mask=inside, other=0.0, eviction_policy="evict_first"'),
    (
        "residual_stride + col, mask=inside, other=0.0",
        'residual_stride + col, mask=inside, other=0.0, eviction_policy="evict_first"',
    ),
)
Candidate = tuple[str, tuple[int, int, int], tuple[tuple[str, str], ...]]


def candidates(op_name: str, hidden: int) -> Iterator[Candidate]:
    """Yield (label, tile, edits of the kernel) for one op and row length."""
    if op_name == "add_rmsnorm":
        cols = 1 << (hidden - 1).bit_length()
        for warps in (4, 8, 16, 32):
            yield f"{warps} warps", (1, cols, warps), ()
        yield "2 rows, 16 warps", (2, cols, 16), ()
        for warps in (8, 16):
            yield f"{warps} warps, streamed", (1, cols, warps), STREAMED
    else:
        for cols, warps in ((1024, 4), (1024, 2), (2048, 4), (2048, 8), (4096, 4), (4096, 8), (8192, 8)):
            yield f"{cols} columns, {warps} warps", (1, cols, warps), ()


@contextmanager
def applied(op_name: str, tile: tuple[int, int, int], edits: tuple[tuple[str, str], ...]) -> Iterator[None]:
    """Let an op use another tile and an edited kernel for the length of a ``with`` block."""
    module: Any = {"add_rmsnorm": add_rmsnorm, "silu_and_mul": silu_and_mul}[op_name]
    kernel_name = f"_{op_name}_kernel"
    kernel, heuristic = getattr(module, kernel_name), module.tile
    changed: Callable[..., Any] = kernel
    for old, new in edits:
        changed = edit(old, new)(changed)
    setattr(module, kernel_name, changed)
    module.tile = lambda hidden: tile
    try:
        yield
    finally:
        setattr(module, kernel_name, kernel)
        module.tile = heuristic


def persistent_candidates(op_name: str, hidden: int) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield (label, function) of the persistent add + RMSNorm with several numbers of programs and warps."""
    if op_name != "add_rmsnorm":
        return
    for programs, warps in ((2, 8), (4, 8), (2, 16), (3, 16), (4, 4)):
        yield f"persistent {programs}/SM, {warps} warps", persistent(programs, warps)
