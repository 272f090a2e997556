"""KER-007."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op, Tensors


@check(
    "KER-007",
    feature="kernels",
    bound="exact: inputs keep their bits; results in given outputs, in place too where the contract says so, equal "
    "fresh ones",
    sources=("https://github.com/ScalingIntelligence/KernelBench/pull/82",),
)
def test_ker_007(kernels: KernelTarget, op: Op) -> None:
    """Inputs stay as they were, and given outputs are written, also in place where the contract says so.

    An input that changes without being asked for spoils whoever reads it next; an output argument that is ignored
    leaves old memory in its place; in place, a program must have read all of its row before it writes.
    """
    from gaugeblock.conformance.kernels.judging import claimed, require_same_bits

    for case in claimed(kernels, op, op.some_cases(5, op.sizes.usual, 7), exact=False):
        inputs = kernels.place(case)
        fresh = kernels.call(op, inputs, case.params)
        for name, tensor in inputs.items():
            require_same_bits(tensor, case.inputs[name], f"{case.label}: the input {name} was changed")
        if kernels.takes_outs(op):
            _given_outputs(kernels, op, case, fresh)
            _in_place(kernels, op, case, fresh)


def _given_outputs(kernels: KernelTarget, op: Op, case: Case, fresh: Tensors) -> None:
    """Pass outputs: they hold the results and are what is returned."""
    import torch

    outs = {op.outs[name]: torch.zeros_like(tensor) for name, tensor in fresh.items()}
    returned = kernels.call(op, kernels.place(case), case.params, **outs)
    _require_written(case, op, outs, returned, fresh, "given as out")


def _in_place(kernels: KernelTarget, op: Op, case: Case, fresh: Tensors) -> None:
    """Pass inputs as the outputs that may take their place; the inputs that stay keep their bits."""
    from gaugeblock.conformance.kernels.judging import require_same_bits

    if not op.in_place:
        return
    inputs = kernels.place(case)
    outs = {out: inputs[name] for out, name in op.in_place.items()}
    returned = kernels.call(op, inputs, case.params, **outs)
    _require_written(case, op, outs, returned, fresh, "in place")
    for name in inputs.keys() - op.in_place.values():
        require_same_bits(inputs[name], case.inputs[name], f"{case.label}: in place, the input {name} was changed")


def _require_written(case: Case, op: Op, outs: Tensors, returned: Tensors, fresh: Tensors, how: str) -> None:
    from gaugeblock.conformance.kernels.judging import require_same_bits

    for name, expected in fresh.items():
        out = op.outs[name]
        require_same_bits(outs[out], expected, f"{case.label}: {out} ({how}) does not hold the result")
        require_same_bits(returned[name], expected, f"{case.label}: {name} returned with {out} ({how}) differs")
