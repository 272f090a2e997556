"""KER-023."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


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
)
def test_ker_023(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """A kernel that is launched while the one before still runs waits for it before it touches memory.

    With programmatic dependent launch the order of a stream no longer protects an input: a load in front of
    ``griddepcontrol.wait`` reads what lay there before, when the card is busy, once a day. The message names the input.
    """
    from gaugeblock.conformance.kernels.judging import claimed, judge_beside, record
    from gaugeblock.conformance.kernels.launched_early import late_inputs, watched, with_late_input

    evidence = []
    cases = [case for rows in (5, 1) for case in op.some_cases(rows, op.sizes.usual, 23)]
    for case in claimed(kernels, op, cases):
        if kernels.device == "cpu":
            inputs = kernels.place(case)
            with watched(inputs) as seen:
                kernels.call(op, inputs, case.params)
            assert not seen.early, f"{case.label}: {'; '.join(seen.early)}"
            evidence.append({"case": f"{case.label}: nothing is touched before the wait", "budget_used": {}})
        elif not kernels.own_randomness(op):
            plain = kernels.run(op, case)
            for name in late_inputs(case):
                late = with_late_input(kernels, op, case, name)
                evidence.append(judge_beside(op, case, late, plain, f"with {name} written late by the kernel before"))
    record(record_property, op, kernels, evidence)
