"""KER-003."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

OPS = ("add_rmsnorm",)


@check(
    "KER-003",
    feature="kernels",
    bound="exact: one addition has one correctly rounded result, and the fp32 sum of two bf16 or fp16 numbers rounded "
    "again is that result (24 ≥ 2·11 + 2 bits, Figueroa 1995)",
    sources=(
        "https://github.com/ROCm/aiter/issues/5151",
        "https://github.com/ScalingIntelligence/KernelBench/pull/82",
    ),
)
def test_ker_003(kernels: KernelTarget, op: Op) -> None:
    """The new residual is the exact sum rounded once to nearest even.

    The residual stream runs through every layer, so an error that always points one way grows with depth and no
    tolerance per call sees it. Look for a truncating cast, for a residual that was not updated, and for ties.
    """
    from gaugeblock.conformance.kernels.judging import require_same_bits

    for dtype in op.dtypes:
        for kind in ("normal", "scaled", "denormal"):
            case = op.make(4, 300, dtype, 3, kind)
            oracle, outputs = op.oracle(case), kernels.run(op, case)
            for name in op.exact:
                expected = oracle[name].to(dtype)
                require_same_bits(outputs[name], expected, f"{case.label}: {name} is not the rounded sum")
