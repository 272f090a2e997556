"""KER-005."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


def applies(op: Op) -> bool:
    """Whether the op has rows of different scale."""
    return "scaled" in op.kinds


@check(
    "KER-005",
    feature="kernels",
    bound="each row by its own bound; rows run from 2⁻²⁰ to 2²⁰ (fp16: 2⁻⁷ to 2⁷), so that an absolute tolerance fit "
    "for the largest would let the smallest be anything",
    sources=(
        "https://github.com/thinking-machines-lab/batch_invariant_ops/issues/11",
        "https://github.com/ScalingIntelligence/KernelBench/issues/165",
    ),
)
def test_ker_005(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """Rows of very different scale are each right on their own scale.

    Small rows wrong: a scale shared by several rows, or a result that passed through fp16. Large rows infinite: the
    same, or an intermediate in the storage dtype.
    """
    from gaugeblock.conformance.kernels.judging import record, run_and_judge

    sizes = (op.sizes.small, op.sizes.usual)  # short rows share a program, long ones do not
    cases = [case for size in sizes for case in op.some_cases(9, size, 5, "scaled")]
    record(record_property, op, kernels, run_and_judge(kernels, op, cases))
