"""KER-010."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op

ROWS = 63
PARTS = ((0, 1), (20, 21), (56, 63), (7, 40))  # row ranges that are computed on their own


@check(
    "KER-010",
    feature="kernels",
    bound="exact: the bits of a row are the same alone, in a part and in the whole batch",
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
    from gaugeblock.conformance.kernels.judging import require_same_bits

    for dtype, hidden in ((op.dtypes[0], 4097), (op.dtypes[-1], 1000)):
        case = op.make(ROWS, hidden, dtype, 11, "normal")
        whole = kernels.run(op, case)
        for start, stop in PARTS:
            part = kernels.run(op, rows_of(case, start, stop))
            for name, result in part.items():
                message = (
                    f"{case.label}: {name} of rows {start}…{stop - 1} alone differs from the same row in the batch"
                )
                require_same_bits(result, whole[name][start:stop], message)


def rows_of(case: Case, start: int, stop: int) -> Case:
    """Return the case of some rows of another; what has one dimension (a weight) is shared."""
    from gaugeblock.kernels.contract import Case

    inputs = {name: t[start:stop] if t.dim() > 1 else t for name, t in case.inputs.items()}
    return Case(f"{case.label} rows {start}…{stop - 1}", inputs, case.params)
