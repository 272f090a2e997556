"""Calls drawn by Hypothesis: rows, size, dtype, variant, values, and where each tensor lies in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gaugeblock.conformance.kernels.judging import STRUCTURE, judge
from gaugeblock.conformance.kernels.layouts import strided, transposed
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.arguments import Unclaimed
from gaugeblock.kernels.contract import Case, Op, Tensors

LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda t: t,
    "strided": strided,
    "transposed": transposed,
}
MAX_ROWS = 6


@dataclass(frozen=True)
class Drawn:
    """A case, and the layout of each of its inputs by name."""

    case: Case
    layouts: dict[str, str]

    def placed(self, kernels: KernelTarget) -> Tensors:
        """Return the inputs on the target's device in their layouts."""
        placed = kernels.place(self.case)
        return {name: LAYOUTS[self.layouts[name]](t) if name in self.layouts else t for name, t in placed.items()}


@st.composite
def calls(draw: st.DrawFn, op: Op) -> Drawn:
    """Draw a call of an op. Hypothesis shrinks to no rows, the smallest size, normal values, contiguous."""
    sizes = op.sizes
    rows = draw(st.integers(0, MAX_ROWS))
    size = sizes.step * draw(st.integers(1, max(sizes.usual // sizes.step, 1)))
    dtype, kind, variant = (draw(st.sampled_from(choices)) for choices in (op.dtypes, op.kinds, op.variants))
    case = op.make(rows, size, dtype, draw(st.integers(0, 99)), kind, **variant)
    wide = [name for name, tensor in case.inputs.items() if tensor.dim() > 1]
    return Drawn(case, {name: draw(st.sampled_from(tuple(LAYOUTS))) for name in wide})


def judge_drawn(kernels: KernelTarget, op: Op, examples: int) -> None:
    """Judge ``examples`` drawn calls.

    Raises:
        AssertionError: of the smallest failing call that shrinking found.
    """

    @settings(
        max_examples=examples,
        derandomize=True,  # the same calls in every run
        database=None,
        deadline=None,  # the check has a time limit of its own
        suppress_health_check=list(HealthCheck),  # making float64 values is slow by Hypothesis' measure
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,  # one counterexample, the smallest
    )
    @given(calls(op))
    def run(drawn: Drawn) -> None:
        _judge_one(kernels, op, drawn)

    run()


def _judge_one(kernels: KernelTarget, op: Op, drawn: Drawn) -> None:
    """Judge one call; a refusal that names strides or contiguity is right where a layout is not contiguous."""
    unusual = {name: layout for name, layout in drawn.layouts.items() if layout != "contiguous"}
    what = ", ".join(f"{name} {layout}" for name, layout in unusual.items())
    try:
        outputs = kernels.call(op, drawn.placed(kernels), drawn.case.params)
    except Unclaimed:
        return
    except TargetFault as refusal:
        if unusual and any(word in str(refusal).lower() for word in ("stride", "contiguous")):
            return
        raise TargetFault(f"{drawn.case.label} ({what}): {refusal}") from refusal
    judge(op, drawn.case, outputs, f"({what})" if what else "", allowed=STRUCTURE)
