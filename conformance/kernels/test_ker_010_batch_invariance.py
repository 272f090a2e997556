"""KER-010."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op, Tensors

ROWS = 21
PARTS = ((0, 1), (18, 21), (2, 19))  # row ranges that are computed on their own


@check(
    "KER-010",
    feature="kernels",
    bound="exact: the bits of a row are the same alone, in a part and in the whole batch; where the contract allows "
    "other bits for another number of rows, the same whatever the other rows hold",
    sources=(
        "https://github.com/thinking-machines-lab/batch_invariant_ops",
        "https://github.com/sgl-project/sglang/issues/11368",
    ),
)
def test_ker_010(kernels: KernelTarget, op: Op) -> None:
    """A row's result does not depend on the number of rows or on its place among them.

    Otherwise a request's answer changes with its batch-mates. Last bits that differ are another order of summation for
    another batch size (split reductions, autotuning by rows); large differences are a row or tile index used twice.
    """
    from gaugeblock.conformance.kernels.judging import claimed

    long = op.make(ROWS, op.sizes.long, op.dtypes[0], 11, "normal")
    for case in claimed(kernels, op, (long, *op.some_cases(ROWS, op.sizes.usual, 11))):
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
    """Compare one row's result before and after all the others' first input was replaced."""
    from gaugeblock.conformance.kernels.judging import require_same_bits

    row = op.rows(case, 6, 7)[1]
    first = next(iter(case.inputs))
    inputs = dict(case.inputs)
    inputs[first] = case.inputs[first].roll(5, 0)
    inputs[first][row] = case.inputs[first][row]
    for name, result in kernels.run(op, replace(case, inputs=inputs)).items():
        message = f"{case.label}: {name} of row 6 differs when the other rows hold other values"
        require_same_bits(result[row], whole[name][row], message)
