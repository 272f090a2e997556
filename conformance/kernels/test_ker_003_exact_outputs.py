"""KER-003."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


def applies(op: Op) -> bool:
    """Whether the contract names outputs that must be exact."""
    return bool(op.exact)


@check(
    "KER-003",
    feature="kernels",
    bound="exact, where the contract says so: one addition has one correctly rounded result, and the fp32 sum of two "
    "bf16 or fp16 numbers rounded again is that result (24 ≥ 2·11 + 2 bits, Figueroa 1995)",
    sources=(
        "https://github.com/ROCm/aiter/issues/5151",
        "https://github.com/ScalingIntelligence/KernelBench/pull/82",
    ),
)
def test_ker_003(kernels: KernelTarget, op: Op) -> None:
    """Outputs that are one exact operation away from the inputs are that, rounded once to nearest even.

    The residual stream runs through every layer, so an error that always points one way grows with depth and no
    tolerance per call sees it. Look for a truncating cast, for a residual that was not updated, and for ties.
    """
    from gaugeblock.conformance.kernels.judging import claimed, require_same_bits

    kinds = ("normal", "scaled", "denormal")
    cases = itertools.chain.from_iterable(op.some_cases(4, op.sizes.usual, 3, kind) for kind in kinds)
    for case in claimed(kernels, op, cases):
        oracle, outputs = op.oracle(case), kernels.run(op, case)
        for name in op.exact:
            expected = oracle[name].to(outputs[name].dtype)
            require_same_bits(outputs[name], expected, f"{case.label}: {name} is not the exact result rounded once")
