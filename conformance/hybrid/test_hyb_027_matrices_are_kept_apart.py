"""HYB-027."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.int8_target import Int8Target

COLUMNS, CHANNELS, ROUNDS = 48, 24, 12
RETURNS, MOST = 3, 600  # matrices that must have another one's id, and how many are made at most until they have


@check(
    "HYB-027",
    feature="int8",
    bound="exact: a matrix that was quantised alone, and used at once, gives the same bits",
    sources=(
        "https://github.com/sgl-project/sglang/issues/14158",
        "https://github.com/pytorch/pytorch/issues/50988",
    ),
)
def test_hyb_027(int8_linear: Int8Target, record_property: Callable[[str, object], None]) -> None:
    """An INT8 matrix keeps its own numbers, whatever came before it in its place

    Packed weights that are found by an address or an id are those of the last model there, once weights are loaded
    again. A matrix that still looks at the tensor it came from changes with it.
    """
    import torch

    from gaugeblock.fixtures.targets.inprocess import target_call

    generator = torch.Generator().manual_seed(27)
    x = torch.randn(2, COLUMNS, generator=generator)
    weights = [torch.randn(CHANNELS, COLUMNS, generator=generator) for _ in range(ROUNDS)]
    with target_call("INT8 products of matrices that are all kept"):
        kept = [int8_linear.quantize(weight) for weight in weights]  # all alive: no address is used twice
        wanted = [int8_linear.linear(x, matrix).clone() for matrix in kept]
    place = torch.empty(CHANNELS, COLUMNS)  # where one model's weights come after another's
    owners: dict[int, int] = {}  # which matrix had an id last
    made = returns = 0
    while made < ROUNDS or (returns < RETURNS and made < MOST):  # which memory is given again is chance
        number = made % ROUNDS
        place.copy_(weights[number])
        with target_call("the INT8 product of a matrix in another one's place"):
            matrix = int8_linear.quantize(place)
            first = int8_linear.linear(x, matrix).clone()
            place.fill_(1.0)
            later = int8_linear.linear(x, matrix)
        assert torch.equal(first, wanted[number]), (
            f"matrix {number} gives another one's product: off by {(first - wanted[number]).abs().max():.3g}"
        )
        assert torch.equal(later, wanted[number]), f"matrix {number} changes with the tensor that it came from"
        returns += owners.get(id(matrix), number) != number
        owners[id(matrix)] = number
        made += 1
        del matrix  # its id and its memory are free for the next
    with target_call("INT8 products in another order"):
        again = [int8_linear.linear(x, matrix) for matrix in reversed(kept)]
    mixed = [n for n, product in enumerate(reversed(again)) if not torch.equal(product, wanted[n])]
    assert not mixed, f"matrices {mixed} give other products when they are used in another order"
    assert not torch.equal(wanted[0], wanted[1]), "two matrices give one product: nothing was checked"
    record_property(
        "evidence",
        f"{made} matrices in one place, {returns} of them with another one's id, and {ROUNDS} side by side: equal in "
        "every bit",
    )
