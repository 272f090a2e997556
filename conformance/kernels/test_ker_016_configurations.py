"""KER-016."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

EVERY_DTYPE = {"cpu": False, "cuda": True}
"""Whether a configuration runs in every dtype and variant, each other code when compiled, or in one of them in turn."""


@check(
    "KER-016",
    feature="kernels",
    bound="as KER-002, for every tile configuration that may be launched",
    sources=(
        "https://github.com/flashinfer-ai/flashinfer/issues/3168",
        "https://github.com/intel/intel-xpu-backend-for-triton/issues/5773",
    ),
    timeout=300,
)
def test_ker_016(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """Every configuration that an autotuner or a heuristic may choose is right, not only the one chosen here.

    An autotuner takes the fastest, and a corrupting configuration is often fast. The message names it. Foreign
    functions declare theirs by an attribute ``configs`` and take one as the keyword ``config``.
    """
    from gaugeblock.conformance.kernels.judging import claimed, judge, record
    from gaugeblock.conformance.kernels.layouts import nan_for_uninitialised
    from gaugeblock.conformance.outcome import unsupported

    configs = kernels.configs(op)
    if not configs:
        unsupported(f"{kernels.name}.{op.name} declares no tile configurations")
    evidence = []
    cases = list(claimed(kernels, op, op.some_cases(5, op.sizes.usual, 17)))
    for number, config in enumerate(configs):
        for case in cases if EVERY_DTYPE[kernels.device] else [cases[number % len(cases)]]:
            with nan_for_uninitialised():  # else what one leaves unwritten may hold what the last one wrote
                outputs = kernels.call(op, kernels.place(case), {**case.params, "config": config})
            evidence.append(judge(op, case, outputs, f"with {config}"))
    record(record_property, op, kernels, evidence)
