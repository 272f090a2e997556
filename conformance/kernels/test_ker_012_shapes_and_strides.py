"""KER-012."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    import torch

    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op, Tensors

SIZES = ((0, 1000), (1, 1), (63, 63), (1, 4097), (63, 1000))


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
    from gaugeblock.conformance.kernels.judging import STRUCTURE, record, run_and_judge

    odd = (op.make(rows, hidden, op.dtypes[i % 3], 13, "normal") for i, (rows, hidden) in enumerate(SIZES))
    evidence = run_and_judge(kernels, op, odd, allowed=STRUCTURE)
    for dtype in op.dtypes[::2]:
        evidence += _layouts(kernels, op, op.make(6, 300, dtype, 14, "normal"))
    record(record_property, op, kernels, evidence)


def _layouts(kernels: KernelTarget, op: Op, case: Case) -> list[dict[str, Any]]:
    from gaugeblock.conformance.kernels.judging import STRUCTURE, judge
    from gaugeblock.conformance.kernels.layouts import strided, transposed

    def with_rows(change: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
        return {name: change(t) if t.dim() > 1 else t for name, t in kernels.place(case).items()}

    evidence = []
    for what, change in (("strided", strided), ("transposed", transposed)):
        outputs = _unless_refused(kernels, op, case, with_rows(change), what)
        evidence += [judge(op, case, outputs, what, allowed=STRUCTURE)] if outputs else []
    deeper = kernels.call(op, with_rows(lambda t: t.reshape(2, 3, -1)), case.params)
    flat = {name: t.flatten(0, 1) for name, t in deeper.items()}
    return [*evidence, judge(op, case, flat, "as [2, 3, hidden]", allowed=STRUCTURE)]


def _unless_refused(kernels: KernelTarget, op: Op, case: Case, inputs: Tensors, what: str) -> Tensors | None:
    """Call with an unusual layout; None for a refusal that names strides or contiguity, which is as good."""
    from gaugeblock.fixtures.errors import TargetFault

    try:
        return kernels.call(op, inputs, case.params)
    except TargetFault as refusal:
        if not any(word in str(refusal).lower() for word in ("stride", "contiguous")):
            raise TargetFault(f"{case.label} {what}: {refusal}") from refusal
        return None
