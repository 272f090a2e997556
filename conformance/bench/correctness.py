"""A time counts only for a right result: every implementation is judged by the op's contract at the timed shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gaugeblock.kernels.bounds import budget_used
from gaugeblock.kernels.contract import Case, Op, Tensors

SAMPLED_ROWS = 48  # at each end and in the middle: float64 copies of everything would not fit beside the inputs
SAMPLED_REQUESTS = 1  # the same of a paged op, whose rows are whole contexts


def shares(op: Op, case: Case, outputs: Tensors) -> dict[str, float]:
    """Return the largest share of the error budget that each output uses, over a sample of the rows.

    Runs on the device of the case. Above 1 is out of bound.
    """
    used: dict[str, float] = {}
    for part, where in sample(op, case):
        oracle = op.oracle(part)
        bound = op.bound(part, oracle)
        for name, expected in oracle.items():
            result = outputs[name][where]
            if result.shape != expected.shape:
                raise ValueError(f"{name} has shape {tuple(outputs[name].shape)}")
            share = budget_used(result, expected, bound[name])
            used[name] = max(used.get(name, 0.0), share.max().item() if share.numel() else 0.0)
    return used


def sample(op: Op, case: Case) -> Iterator[tuple[Case, slice]]:
    """Yield the first, the middle and the last rows of a case, or all of a small one."""
    total = case.inputs["block_table" if op.paged else op.row_inputs[0]].shape[0]
    size = SAMPLED_REQUESTS if op.paged else SAMPLED_ROWS
    if total <= 3 * size:
        yield op.rows(case, 0, total)
        return
    for start in (0, (total - size) // 2, total - size):
        yield op.rows(case, start, start + size)


def outputs_of(op: Op, case: Case, function: Callable[..., Any]) -> Tensors:
    """Call an implementation on a case's inputs as they lie."""
    return op.named(function(*case.inputs.values(), **case.params))
