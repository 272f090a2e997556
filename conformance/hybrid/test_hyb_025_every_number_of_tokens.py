"""HYB-025."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from torch import Tensor

    from gaugeblock.fixtures.targets.int8_target import Int8Target

TOKENS = (*range(1, 10), 17, 33)  # a kernel for one token, one for a few, tiles with a remainder
SHAPES = ((1, 5), (2, 1), (3, 16), (31, 17), (65, 33), (127, 3), (576, 40))  # (in, out): no multiple of 4 but the last
LONG = (14336, 3)  # the widest layer of an 8 B model
LARGEST = 127.0


@check(
    "HYB-025",
    feature="int8",
    bound="|y − x·w| <= Σ|x||w| / 127: at values of the largest magnitude and zero alone, an operand is off by at most "
    "half a step of 1/127. 16-bit sums that saturate lose a quarter, a column or a token that is left out far more",
    sources=(
        "https://github.com/pytorch/pytorch/issues/103646",
        "https://github.com/pytorch/ao/issues/4266",
        "https://github.com/pytorch/pytorch/issues/195066",
        "https://github.com/robertknight/rten/pull/1046",
        "https://github.com/uxlfoundation/oneDNN/issues/717",
    ),
)
def test_hyb_025(int8_linear: Int8Target, record_property: Callable[[str, object], None]) -> None:
    """INT8 sums hold for every number of tokens, columns and channels

    A library has one kernel for a single token, one for a few and one for tiles, each with its own remainders, and
    picks by shape and by processor: one of them may saturate or leave columns out while the others are right. The
    message names the shape.
    """
    from gaugeblock.fixtures.errors import TargetFault
    from gaugeblock.fixtures.targets.inprocess import target_call

    worst, products, refused = 0.0, 0, 0
    for x, weight in _cases():
        shape = f"{len(x)} tokens, {x.shape[1]} columns, {len(weight)} channels"
        try:
            with target_call(f"{shape}: the INT8 product"):
                actual = int8_linear.linear(x, int8_linear.quantize(weight))
        except TargetFault:
            if x.shape[1] > 1:  # no model has a layer of one column: it may be refused, though not be wrong
                raise
            refused += 1
            continue
        assert actual.shape == (len(x), len(weight)), f"{shape}: shape {tuple(actual.shape)}"
        exact = x.double() @ weight.double().T
        step = x.double().abs() @ weight.double().abs().T / LARGEST
        off = (actual.double() - exact).abs() / step.clamp(min=1.0)
        off = off.nan_to_num(nan=float("inf"))
        row, channel = divmod(int(off.argmax()), len(weight))
        assert off.max() <= 1, (
            f"{shape}: row {row}, channel {channel} is {actual[row, channel]:.7g} instead of "
            f"{exact[row, channel]:.7g}, {off.max():.3g} times what rounding may cost"
        )
        worst, products = max(worst, float(off.max())), products + 1
    told = f", {refused} of one column refused" if refused else ""
    record_property("evidence", f"{products} products{told}, at most {100 * worst:.2g}% of what rounding may cost")


def _cases() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield x [tokens, in] and weight [out, in] fp32 of -127, 0 and 127, first rows of one sign among them."""
    import torch

    generator = torch.Generator().manual_seed(25)

    def extremes(rows: int, columns: int) -> Tensor:
        values = LARGEST * torch.randint(-1, 2, (rows, columns), generator=generator).float()
        values[:, -1] = LARGEST  # the last column counts, in every row
        values[0] = LARGEST
        return values

    for columns, channels in SHAPES:
        for tokens in TOKENS:
            x, weight = extremes(tokens, columns), extremes(channels, columns)
            yield x, weight
            yield -x, weight
    yield extremes(1, LONG[0]), extremes(LONG[1], LONG[0])
    yield extremes(4, LONG[0]), extremes(LONG[1], LONG[0])
