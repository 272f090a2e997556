"""KER-014."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


def applies(op: Op) -> bool:
    """Whether the op reads a paged cache."""
    return op.paged


@check(
    "KER-014",
    feature="kernels",
    bound="exact: the same keys and values in other pages give the same bits",
    sources=("https://github.com/flashinfer-ai/flashinfer/issues/3219",),
    timeout=120,
)
def test_ker_014(kernels: KernelTarget, op: Op) -> None:
    """Where the pages of a context lie changes nothing.

    Other values when pages move: a page is read by its position in place of its index in the block table, or
    neighbouring pages are taken for contiguous memory.
    """
    from gaugeblock.conformance.kernels.judging import affordable, claimed, require_same_bits
    from gaugeblock.conformance.kernels.paging import permuted

    for case in claimed(kernels, op, affordable(kernels, op, 4, op.sizes.usual, 15)):
        expected = kernels.run(op, case)
        for seed in (1, 2):
            moved = permuted(case, seed)
            assert not moved.inputs["block_table"].equal(case.inputs["block_table"]), "the pages did not move"
            for name, result in kernels.run(op, moved).items():
                require_same_bits(result, expected[name], f"{moved.label}: {name} changed with the pages' places")
