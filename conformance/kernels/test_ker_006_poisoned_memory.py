"""KER-006."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op, Tensors


@check(
    "KER-006",
    feature="kernels",
    bound="the bits of a call in clean memory, or 4 × KER-002's; what lies around inputs and outputs is NaN and must "
    "neither enter a result nor be written",
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/1745",
        "https://github.com/vllm-project/vllm/issues/53856",
        "https://github.com/sgl-project/sglang/issues/32477",
    ),
    timeout=120,
)
def test_ker_006(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """Every output element is written, nothing outside is read or written, and NaN stays in its row.

    Inputs and outputs are windows into buffers of NaN, and fresh memory is NaN too. A NaN at the end of a row is a
    store mask that is too short or a load mask that is too long; a NaN that disappears hides a fault further up.
    """
    from gaugeblock.conformance.kernels.judging import STRUCTURE, affordable, claimed, judge_beside, record
    from gaugeblock.conformance.kernels.layouts import nan_for_uninitialised

    evidence = []
    sizes = (op.sizes.usual, op.sizes.odd, op.sizes.small + op.sizes.step)
    cases = zip(*(affordable(kernels, op, 5, size, 6) for size in sizes), strict=True)
    for case in claimed(kernels, op, [alike[i % len(sizes)] for i, alike in enumerate(cases)]):  # the sizes in turn
        clean = kernels.run(op, case)
        evidence.append(_inside_nan(kernels, op, case, clean))
        with nan_for_uninitialised():
            fresh = kernels.run(op, case)
        evidence.append(judge_beside(op, case, fresh, clean, "in fresh memory", STRUCTURE))
        _nan_row(kernels, op, case, clean)
    record(record_property, op, kernels, evidence)


def _inside_nan(kernels: KernelTarget, op: Op, case: Case, clean: Tensors) -> dict[str, object]:
    """Run with all tensors in the middle of NaN; return the evidence."""
    from gaugeblock.conformance.kernels.judging import STRUCTURE, judge_beside
    from gaugeblock.conformance.kernels.layouts import Guarded

    inputs = {name: Guarded(tensor).window for name, tensor in kernels.place(case).items()}
    if not kernels.takes_outs(op):
        return judge_beside(op, case, kernels.call(op, inputs, case.params), clean, "inside NaN", STRUCTURE)
    outs = {op.outs[name]: Guarded(tensor, empty=True) for name, tensor in clean.items()}
    outputs = kernels.call(op, inputs, case.params, **{name: out.window for name, out in outs.items()})
    evidence = judge_beside(op, case, outputs, clean, "inside NaN", STRUCTURE)
    for name, out in outs.items():
        overwritten = out.overwritten()
        assert overwritten == 0, f"{case.label}: {overwritten} elements around {name} were overwritten"
    return evidence


def _nan_row(kernels: KernelTarget, op: Op, case: Case, clean: Tensors) -> None:
    """Put NaN into row 2: that row shows it, the others do not change."""
    import torch

    from gaugeblock.conformance.kernels.judging import require_same_bits

    inputs = kernels.place(case)
    probed = next((t for n, t in inputs.items() if n in op.row_inputs and t.is_floating_point()), None)
    if probed is None or op.integer:
        return
    row = op.rows(case, 2, 3)[1]  # of the outputs, and of the first input
    probed[row].flatten(1)[:, min(7, probed.shape[-1] - 1)] = math.nan
    outs = {op.outs[name]: torch.zeros_like(result) for name, result in clean.items()}  # what is not written is seen
    outputs = kernels.call(op, inputs, case.params, **(outs if kernels.takes_outs(op) else {}))
    for name, result in outputs.items():
        others = torch.ones(len(result), dtype=torch.bool, device=result.device)
        others[row] = False
        message = f"{case.label}: NaN in row 2 changed {name} of other rows"
        require_same_bits(result[others], clean[name][others], message)
        vanished = name in op.nan_outputs and not result[row].isnan().any()
        assert not vanished, f"{case.label}: NaN in row 2 became numbers in {name}"
