"""KER-001."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op, Tensors


@check(
    "KER-001",
    feature="kernels",
    gate=True,
    bound="exact: shape, dtype; what is written is finite and not constant; nothing is said about accuracy yet",
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
        written = _written(kernels, op, case, outputs)
        for name, expected in op.oracle(case).items():
            require_form(case.label, name, outputs[name].cpu(), expected, case)
            result = written[name].cpu()
            broken = int((~result.isfinite()).sum())
            assert broken == 0, f"{case.label}: {broken} values of {name} are not finite"
            low, high = result.min().item(), result.max().item()
            assert low < high, f"{case.label}: {name} is constant {low}, whatever the input"


def _written(kernels: KernelTarget, op: Op, case: Case, outputs: Tensors) -> Tensors:
    """Return what the op writes: onto zeros where an infinite or NaN result may be old memory, which is KER-006's."""
    import torch

    if not kernels.takes_outs(op) or all(bool(result.isfinite().all()) for result in outputs.values()):
        return outputs
    outs = {op.outs[name]: torch.zeros_like(result) for name, result in outputs.items()}
    return kernels.call(op, kernels.place(case), case.params, **outs)
