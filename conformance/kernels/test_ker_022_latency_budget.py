"""KER-022."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import inconclusive, unsupported

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

INTERPRETER = "Triton's interpreter"


@check(
    "KER-022",
    feature="kernels",
    bound="golden/budgets/kernels.json: on a GPU ratios to the same run's copy, matrix product or fastest peer, bound "
    "to the card's name, from what others reach there; in the interpreter, bytes counted exactly over the contract's "
    "model, a fifth above today's count; and a result within the op's error budget, at each of these shapes",
    level="extended",
    sources=(
        "https://github.com/ROCm/aiter/pull/3603",
        "https://github.com/jundot/omlx/pull/3492",
        "https://github.com/flashinfer-ai/flashinfer/issues/4468",
    ),
    timeout=300,
)
def test_ker_022(kernels: KernelTarget, op: Op, record_property: Callable[[str, object], None]) -> None:
    """An op costs no more than its budget.

    On a GPU: time, as a ratio to what the card and the fastest peer reach in the same run. In the interpreter: bytes
    moved, which a hidden copy, a second pass or a fallback to PyTorch's composition multiply. Either counts only for a
    right result: what is measured is judged by the op's contract first. The whole table comes from `gaugeblock bench
    kernels`. A run noisier than its budget is inconclusive: look for another process on the card first.
    """
    from gaugeblock.conformance.bench.budgets import known_cards, load_budgets
    from gaugeblock.conformance.bench.holding import budgeted, hold_to_bytes, hold_to_times
    from gaugeblock.conformance.bench.timing import GpuTimer
    from gaugeblock.conformance.kernels.judging import claimed

    if kernels.device == "cpu":
        budget = load_budgets(INTERPRETER).get(op.name)
        if budget is None:
            unsupported(f"{op.name} has no budget of bytes")
        next(claimed(kernels, op, op.cases(2, op.sizes.small, 0), exact=False))
        found = hold_to_bytes(kernels, op, budget)
    else:
        timer = GpuTimer()
        budgets = load_budgets(timer.card)
        shapes = budgeted(op, budgets)
        if not shapes:
            unsupported(f"{timer.card} has no budget for {op.name}; cards that have some: {', '.join(known_cards())}")
        found = hold_to_times(kernels, op, budgets, timer, kernels.device, shapes)
    record_property("evidence", {"op": op.name, "module": kernels.name, "shapes": found.evidence})
    assert not found.wrong, f"{op.name} is wrong where its cost is measured: {'; '.join(found.wrong)}"
    assert not found.over, f"{op.name} is over its budget: {'; '.join(found.over)}"
    if found.uncounted:
        unsupported(found.uncounted)
    if found.noisy:
        inconclusive("; ".join(found.noisy))
