"""Calls as an engine makes them, whose results are judged where they lie and by a sample of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from gaugeblock.conformance.bench.correctness import SAMPLED_ROWS, sample
from gaugeblock.fixtures.targets.kernels import REFERENCE, KernelTarget
from gaugeblock.kernels.contract import Case, Op

SEED = 24
EDGES = (128, 256, 1024)
"""Rows at which tiles of common heights end, and at which a second band of eight or sixteen such tiles begins."""

DRAWN = 8


def served_cases(kernels: KernelTarget, op: Op) -> Iterator[Case]:
    """Yield the calls of every served shape, in every dtype; in the interpreter in one in turn, the last one first."""
    for number, shape in enumerate(op.shapes):
        for dtype in op.dtypes if kernels.device == "cuda" else [op.dtypes[-1 - number % len(op.dtypes)]]:
            yield from served(kernels, op, shape, dtype)


def served(kernels: KernelTarget, op: Op, shape: Mapping[str, Any], dtype: torch.dtype) -> Iterator[Case]:
    """Yield the case of one of ``op.shapes``, and for the reference the same with what only an engine knows."""
    variant = {name: value for name, value in shape.items() if name not in ("rows", "size")}
    case = op.make(shape["rows"], shape["size"], dtype, SEED, "normal", **variant)
    yield case
    yield from as_served(kernels, op, case)


def as_served(kernels: KernelTarget, op: Op, case: Case) -> Iterator[Case]:
    """Yield the case with what only an engine knows, for the reference; nothing where there is no such thing."""
    if op.served and kernels.name == REFERENCE:
        added = ", ".join(op.served)
        yield replace(case, label=f"{case.label} {added}", params={**case.params, **op.served})


def sampled_rows(op: Op, case: Case) -> Iterator[tuple[Case, slice]]:
    """Yield the rows that the bench judges, and of a long batch rows at the edges of tiles and some drawn ones."""
    yield from sample(op, case)
    total = case.inputs[op.row_inputs[0]].shape[0]
    if op.paged or total <= 3 * SAMPLED_ROWS:
        return
    drawn = torch.randint(total, (DRAWN,), generator=torch.Generator().manual_seed(SEED)).tolist()
    for row in (*(edge - 1 for edge in EDGES if edge < total), *drawn):
        yield op.rows(case, row, min(row + 2, total))
