"""KER-004."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


def applies(op: Op) -> bool:
    """Whether the outputs are rounded at all."""
    return not op.integer


FACTORS = {"rmse": 1.5, "maximum": 2.0}


@check(
    "KER-004",
    feature="kernels",
    bound="RMSE ≤ 1.5 × eager's and maximum ≤ 2 × eager's (the rule of FlashAttention and QuACK); an eager result "
    "better than the oracle rounded once counts as that",
    sources=("https://github.com/amd/IRON/pull/139", "https://github.com/Dao-AILab/flash-attention"),
)
def test_ker_004(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """The error over many elements is no larger than that of PyTorch's own unfused ops.

    One element may use its whole bound, all of them together may not: a systematic error of a few fp32 units hides in
    a bound that must allow for the worst order of a sum. Look at approximations of rsqrt, exp and reciprocal, and at
    constants that were shortened.
    """
    from gaugeblock.conformance.kernels.errors import eager_outputs, error_sizes
    from gaugeblock.conformance.kernels.judging import claimed

    evidence = []
    for case in claimed(kernels, op, op.some_cases(4, op.sizes.long, 4)):
        oracle, outputs, eager = op.oracle(case), kernels.run(op, case), eager_outputs(kernels, op, case)
        for name, expected in oracle.items():
            ours, theirs = error_sizes(outputs[name], expected), error_sizes(eager[name], expected)
            rounded = error_sizes(expected.to(case.dtype), expected)
            evidence.append({"case": f"{case.label} {name}", "target": ours.rounded(), "eager": theirs.rounded()})
            for what, factor in FACTORS.items():
                mine, baseline = getattr(ours, what), max(getattr(theirs, what), getattr(rounded, what))
                message = f"{case.label}: {what} of {name} {mine:.3g} exceeds {factor} × eager's {baseline:.3g}"
                assert mine <= factor * baseline, message
    record_property("evidence", {"op": op.name, "cases": evidence})
