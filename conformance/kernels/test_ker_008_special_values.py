"""KER-008."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

ORDINARY = ("normal", "small", "scaled")  # judged by KER-002 and KER-005


def applies(op: Op) -> bool:
    """Whether the op has other kinds of values."""
    return not set(op.kinds) <= set(ORDINARY)


@check(
    "KER-008",
    feature="kernels",
    bound="as KER-002; the sign of an exact zero is the oracle's (IEEE 754)",
    sources=("https://github.com/antirez/ds4/pull/498", "https://github.com/tenstorrent/tt-metal/issues/55717"),
)
def test_ker_008(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """Large offsets, subnormal numbers, ±large values and −0 are computed, not special-cased away.

    NaN or zero among large values is an exponential that overflowed; a mean far above the deviation shows what is
    subtracted that should not be; subnormal results that are zero show a kernel that flushes them.
    """
    from gaugeblock.conformance.kernels.judging import SEVERAL, claimed, judge, record

    evidence = []
    kinds = [kind for kind in op.kinds if kind not in ORDINARY]
    cases = itertools.chain.from_iterable(op.some_cases(SEVERAL, op.sizes.small, 8, kind) for kind in kinds)
    for case in claimed(kernels, op, cases):
        outputs = kernels.run(op, case)
        evidence.append(judge(op, case, outputs))
        for name, expected in op.oracle(case).items():
            other_sign = outputs[name].cpu().signbit() != expected.signbit()
            wrong = int(((expected == 0) & other_sign).sum())
            assert wrong == 0, f"{case.label}: {wrong} zeros of {name} have the wrong sign"
    record(record_property, op, kernels, evidence)
