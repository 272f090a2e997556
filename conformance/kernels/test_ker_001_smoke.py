"""KER-001."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


@check(
    "KER-001",
    feature="kernels",
    gate=True,
    bound="exact: shape, dtype, finite, not constant; nothing is said about accuracy yet",
    sources=("https://github.com/ScalingIntelligence/KernelBench/issues/165",),
)
def test_ker_001(kernels: KernelTarget, op: Op) -> None:
    """The op runs in every dtype and variant and returns finite values of the right form that depend on the input.

    The function raises, or returns zeros, NaN, another shape or another dtype. Look at the signature in the op's
    contract, at the device of the tensors, and at whether the kernel was launched at all.
    """
    from gaugeblock.conformance.kernels.judging import claimed, require_form

    for case in claimed(kernels, op, op.some_cases(4, op.sizes.small, 0), exact=False):
        outputs = kernels.run(op, case)
        for name, expected in op.oracle(case).items():
            result = outputs[name].cpu()
            require_form(case.label, name, result, expected, case)
            broken = int((~result.isfinite()).sum())
            assert broken == 0, f"{case.label}: {broken} values of {name} are not finite"
            low, high = result.min().item(), result.max().item()
            assert low < high, f"{case.label}: {name} is constant {low}, whatever the input"
