"""KER-012."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    import torch

    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op, Tensors

ODD = (1, 63, 1000, 4097)
"""Sizes at which masks go wrong: a single one, one below a power of two, no multiple of a tile, one above."""


@check(
    "KER-012",
    feature="kernels",
    bound="4 × KER-002's; a layout that the op does not take may be refused, never computed wrong",
    sources=("https://github.com/vllm-project/vllm/pull/3324", "https://github.com/ModelTC/LightLLM/issues/1467"),
)
def test_ker_012(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """Empty batches, odd sizes, more dimensions and strided inputs give the right result.

    Wrong at odd sizes only: a mask, or a mean over the padded tile. Wrong when strided: the row stride is taken for
    the row length. An empty batch must return an empty result, not fail at the launch.
    """
    from gaugeblock.conformance.kernels.judging import STRUCTURE, claimed, record, run_and_judge

    evidence = run_and_judge(kernels, op, _shapes(op, kernels.device), allowed=STRUCTURE)
    for case in claimed(kernels, op, op.some_cases(6 if op.leading else 3, op.sizes.usual, 14)):
        evidence += _layouts(kernels, op, case)
    record(record_property, op, kernels, evidence)


def _shapes(op: Op, device: str) -> Iterator[Case]:
    """Yield every dtype and variant in each shape.

    The interpreter takes 63 rows one by one, so there 17 after once; and the sizes that are not the op's own once.
    """
    sizes = op.sizes
    for rows, size in ((0, sizes.usual), (1, sizes.step), (5, sizes.odd), (1, sizes.long)):
        yield from op.some_cases(rows, size, 13)
    once = 1 if device == "cpu" else None
    for size in ODD:
        if size % sizes.step == 0 and size not in (sizes.step, sizes.odd, sizes.long):
            yield from islice(op.some_cases(3, size, 13), once)
    yield from islice(op.some_cases(63, sizes.small, 13), once)
    if device == "cpu":
        yield from islice(op.some_cases(17, sizes.small, 13), 1, None)


def _layouts(kernels: KernelTarget, op: Op, case: Case) -> list[dict[str, Any]]:
    from gaugeblock.conformance.kernels.judging import STRUCTURE, judge
    from gaugeblock.conformance.kernels.layouts import strided, transposed

    def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
        return {name: change(t) if t.dim() > 1 else t for name, t in kernels.place(case).items()}

    evidence = []
    for what, change in (("strided", strided), ("transposed", transposed)):
        outputs = _unless_refused(kernels, op, case, changed(change), what)
        evidence += [judge(op, case, outputs, what, allowed=STRUCTURE)] if outputs else []
    if op.leading:
        inputs = {
            name: t.reshape(2, 3, *t.shape[1:]) if name in op.row_inputs else t
            for name, t in kernels.place(case).items()
        }
        flat = {name: t.flatten(0, 1) for name, t in kernels.call(op, inputs, case.params).items()}
        evidence.append(judge(op, case, flat, "as [2, 3, …]", allowed=STRUCTURE))
    return evidence


def _unless_refused(kernels: KernelTarget, op: Op, case: Case, inputs: Tensors, what: str) -> Tensors | None:
    """Call with an unusual layout; None for a refusal that names strides or contiguity, which is as good."""
    from gaugeblock.fixtures.errors import TargetFault

    try:
        return kernels.call(op, inputs, case.params)
    except TargetFault as refusal:
        if not any(word in str(refusal).lower() for word in ("stride", "contiguous")):
            raise TargetFault(f"{case.label} {what}: {refusal}") from refusal
        return None
