"""KER-016."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

CASES = {"cpu": 1, "cuda": None}
"""Cases a configuration, in turn, those of the last dtype, in which engines serve, first.

None: every dtype and variant, each of which is other code when it is compiled.
"""


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

    An autotuner takes the fastest, and a corrupting configuration is often fast. The message names it, and the evidence
    all that ran: where another takes a configuration's place (a tile that does not suit the dtype, a kernel of another
    card), nothing is said about it. Foreign functions declare theirs by an attribute ``configs`` and take one as the
    keyword ``config``.
    """
    from itertools import cycle, islice

    from gaugeblock.conformance.kernels.configured import configured
    from gaugeblock.conformance.kernels.judging import claimed, judge, record
    from gaugeblock.conformance.kernels.layouts import nan_for_uninitialised
    from gaugeblock.conformance.outcome import unsupported

    configs = kernels.configs(op)
    if not configs:
        unsupported(f"{kernels.name}.{op.name} declares no tile configurations")
    evidence = []
    cases = sorted(claimed(kernels, op, op.cases(5, op.sizes.usual, 17)), key=lambda case: case.dtype != op.dtypes[-1])
    for number, config in enumerate(configs):
        fitting = list(configured(kernels, op, config, cases))
        count = min(CASES[kernels.device] or len(fitting), len(fitting))
        for case in islice(cycle(fitting), number * count, (number + 1) * count):
            with nan_for_uninitialised():  # else what one leaves unwritten may hold what the last one wrote
                outputs = kernels.run(op, case)
            evidence.append(judge(op, case, outputs))
    record(record_property, op, kernels, evidence)
