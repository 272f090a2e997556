"""KER-010."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op, Tensors

ROWS = 21
PARTS = ((0, 1), (18, 21))  # row ranges that are computed on their own
MIDDLE = (2, 19)  # and one that is computed beside other rows


@check(
    "KER-010",
    feature="kernels",
    bound="exact: the bits of a row are the same alone, in a part and in the whole batch; where the contract allows "
    "other bits for another number of rows, the same whatever the other rows hold",
    sources=(
        "https://github.com/thinking-machines-lab/batch_invariant_ops",
        "https://github.com/sgl-project/sglang/issues/11368",
    ),
    timeout=120,
)
def test_ker_010(kernels: KernelTarget, op: Op) -> None:
    """A row's result does not depend on the number of rows or on its place among them.

    Otherwise a request's answer changes with its batch-mates. Last bits that differ are another order of summation for
    another batch size (split reductions, autotuning by rows); large differences are a row or tile index used twice.
    """
    from gaugeblock.conformance.kernels.judging import affordable, claimed

    long = op.make(ROWS, op.sizes.long, op.dtypes[0], 11, "normal")
    for case in claimed(kernels, op, (long, *affordable(kernels, op, ROWS, op.sizes.usual, 11))):
        whole = kernels.run(op, case)
        if op.invariance == "rows":
            _same_alone(kernels, op, case, whole)
        _same_beside_others(kernels, op, case, whole)


def _same_alone(kernels: KernelTarget, op: Op, case: Case, whole: Tensors) -> None:
    """Compare rows computed alone with the same rows of the whole batch."""
    from gaugeblock.conformance.kernels.judging import require_same_bits

    for start, stop in PARTS:
        part, where = op.rows(case, start, stop)
        for name, result in kernels.run(op, part).items():
            message = f"{case.label}: {name} of rows {start}…{stop - 1} alone differs from the same row in the batch"
            require_same_bits(result, whole[name][where], message)


def _same_beside_others(kernels: KernelTarget, op: Op, case: Case, whole: Tensors) -> None:
    """Compare every third row before and after the first input of all others was replaced.

    Where bits may not depend on the number of rows, in a part of the batch, at other places than in the whole.
    """
    from gaugeblock.conformance.kernels.judging import require_same_bits

    start, stop = MIDDLE if op.invariance == "rows" else (0, ROWS)
    part, where = op.rows(case, start, stop)
    kept = [op.rows(part, row, row + 1)[1] for row in range(1, stop - start, 3)]
    first = next(iter(part.inputs))
    values = part.inputs[first].roll(5, 0)
    for row in kept:
        values[row] = part.inputs[first][row]
    outputs = kernels.run(op, replace(part, inputs={**part.inputs, first: values}))
    for name, result in outputs.items():
        for number, row in enumerate(kept):
            message = f"{part.label}: {name} of row {1 + 3 * number} differs when the other rows hold other values"
            require_same_bits(result[row], whole[name][where][row], message)
