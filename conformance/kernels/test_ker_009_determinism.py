"""KER-009."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

ROWS = {"cpu": 6, "cuda": 16}
REPETITIONS = {"cpu": 1, "cuda": 4}
"""Calls after the first: the interpreter runs one program after the other, so that chance has no part in it."""


@check(
    "KER-009",
    feature="kernels",
    bound="exact: the same inputs give the same bits; new values at the same address give their own result, within "
    "4 × KER-002's bound",
    sources=(
        "https://github.com/gpu-mode/reference-kernels/issues/102",
        "https://github.com/thinking-machines-lab/batch_invariant_ops",
    ),
)
def test_ker_009(kernels: KernelTarget, op: Op) -> None:
    """A call's result depends on its inputs alone, not on earlier calls.

    Bits that change from call to call come from atomic additions or uninitialised memory; an earlier call's result
    comes from a cache keyed by address or by id().
    """
    from gaugeblock.conformance.kernels.judging import STRUCTURE, claimed, judge, require_same_bits

    cases = (op.make(ROWS[kernels.device], op.sizes.long, dtype, 9, "normal") for dtype in op.dtypes[::2])
    for case in claimed(kernels, op, cases):
        first = kernels.run(op, case)
        inputs = kernels.place(case)
        for repetition in range(REPETITIONS[kernels.device]):
            again = kernels.call(op, inputs, case.params)
            for name, result in again.items():
                message = f"{case.label}: call {repetition + 2} of {name} gave other bits than the first"
                require_same_bits(result, first[name], message)
        name, values = next(iter(case.inputs.items()))
        other = replace(case, inputs={**case.inputs, name: values.roll(1, 0)})
        inputs[name].copy_(other.inputs[name])
        outputs = kernels.call(op, inputs, case.params)
        judge(op, other, outputs, "written over an earlier call's inputs", allowed=STRUCTURE)
