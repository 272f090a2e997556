"""KER-023."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Case, Op


@check(
    "KER-023",
    feature="kernels",
    bound="in the interpreter exact: nothing is touched before the wait; on a GPU the bits of a plain call, or as "
    "KER-002, each input in turn written by the kernel before, milliseconds after it gave the sign to launch",
    sources=(
        "https://github.com/flashinfer-ai/flashinfer/pull/5081",
        "https://github.com/NVIDIA/cutlass/issues/2760",
        "https://github.com/NVIDIA/cccl/pull/5249",
        "https://github.com/ggml-org/llama.cpp/pull/23690",
    ),
    timeout=120,
)
def test_ker_023(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """A kernel that is launched while the one before still runs waits for it before it touches memory.

    With programmatic dependent launch the order of a stream no longer protects an input: a load in front of
    ``griddepcontrol.wait`` reads what lay there before, when the card is busy, once a day. The message names the input.
    """
    from gaugeblock.conformance.kernels.judging import affordable, claimed, record
    from gaugeblock.conformance.kernels.launched_early import late_inputs, watched
    from gaugeblock.conformance.kernels.served import as_served

    evidence = []
    cases = [case for rows in (5, 1) for case in affordable(kernels, op, rows, op.sizes.usual, 23)]
    for case in claimed(kernels, op, cases):
        if kernels.device == "cpu":
            inputs = kernels.place(case)
            with watched(inputs) as seen:
                kernels.call(op, inputs, case.params)
            assert not seen.early, f"{case.label}: {'; '.join(seen.early)}"
            evidence.append({"case": f"{case.label}: nothing is touched before the wait", "budget_used": {}})
        elif not kernels.own_randomness(op):
            evidence += _late(kernels, op, case, late_inputs(case))
            for served in as_served(kernels, op, case):  # what it promises to be at rest is not written at all
                evidence += _late(kernels, op, served, [n for n in late_inputs(served) if n in op.row_inputs])
    record(record_property, op, kernels, evidence)


def _late(kernels: KernelTarget, op: Op, case: Case, names: list[str]) -> list[dict[str, Any]]:
    """Judge a call behind a kernel that writes each of these inputs late, in turn; return the evidence."""
    from gaugeblock.conformance.kernels.judging import judge_beside
    from gaugeblock.conformance.kernels.launched_early import with_late_input

    plain, evidence = kernels.run(op, case), []
    for name in names:
        late = with_late_input(kernels, op, case, name)
        evidence.append(judge_beside(op, case, late, plain, f"with {name} written late by the kernel before"))
    return evidence
