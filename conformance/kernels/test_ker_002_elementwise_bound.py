"""KER-002."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


@check(
    "KER-002",
    feature="kernels",
    bound="each element: half a unit in the last place of the output, plus the fp32 roundings that the op's contract "
    "counts; no tolerance is set by hand",
    sources=(
        "https://github.com/ScalingIntelligence/KernelBench/issues/165",
        "https://github.com/linkedin/Liger-Kernel/issues/192",
    ),
)
def test_ker_002(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """Every element lies within the computed bound around the float64 oracle.

    The message names the first elements out of bound, in units in the last place. An error of a few units in bf16 or
    fp16 alone is an extra rounding or a sum in the storage dtype; a large one in the small values is a misplaced
    epsilon; one everywhere is another formula (swapped halves, a missing weight).
    """
    from gaugeblock.conformance.kernels.judging import SEVERAL, record, run_and_judge

    sizes = op.sizes
    cases = itertools.chain(
        op.cases(SEVERAL, sizes.usual, 2), op.some_cases(2, sizes.long, 2), op.some_cases(4, sizes.odd, 2, "small")
    )
    record(record_property, op, kernels, run_and_judge(kernels, op, cases))
