"""KER-024."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


@check(
    "KER-024",
    feature="kernels",
    bound="as KER-002, for the first, the middle and the last rows, rows at the edges of tiles and some drawn ones",
    sources=(
        "https://github.com/ROCm/FlyDSL/pull/979",
        "https://github.com/ROCm/aiter/issues/5044",
        "https://github.com/Dao-AILab/flash-attention/issues/1217",
    ),
    timeout=300,
)
def test_ker_024(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """Batches and sizes as engines run them are right, whichever kernel the op chooses for them.

    Small calls never meet the code for large ones: loads without masks, loops over more tiles than programs, bands of
    tiles, contexts in many splits, calls of a library. Look at what the op dispatches this shape to, then at the place
    of the first wrong row: the last tile, a later band, a later split.
    """
    from gaugeblock.conformance.kernels.judging import claimed, judge, record
    from gaugeblock.conformance.kernels.layouts import nan_for_uninitialised
    from gaugeblock.conformance.kernels.served import sampled_rows, served_cases

    evidence = []
    for case in claimed(kernels, op, served_cases(kernels, op)):
        with nan_for_uninitialised():  # what is left unwritten must not hold an earlier call's results
            outputs = kernels.run(op, case)
        for rows, where in sampled_rows(op, case.to(kernels.device)):
            evidence.append(judge(op, rows, {name: result[where] for name, result in outputs.items()}))
    record(record_property, op, kernels, evidence)
