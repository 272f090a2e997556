"""HYB-028."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

COLUMNS, CHANNELS, TOKENS = 160, 32, 5
WIDE = (0, 37, 38, 159)  # the ends and two neighbours
LOUD = 400.0
SLACK = 1e-5  # of Σ|x||w|: fp32 rounding of the sums, in any order


@check(
    "HYB-028",
    feature="int8",
    bound="|y − x·w| <= rounding of the narrow columns alone, as in HYB-002, and 1e-5 of Σ|x||w| for sums in fp32",
    sources=("https://arxiv.org/abs/2208.07339", "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/767"),
)
def test_hyb_028(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Outlier channels that are kept wide count once, exactly, and leave the steps of the others alone

    Counted twice they are also in the integers; found by a wrong index they are a neighbour's; still in the maximum of
    a token they make all its other channels coarse, which is what they were kept apart for.
    """
    import torch

    from gaugeblock.fixtures.targets.inprocess import target_call
    from gaugeblock.reference.hybrid import int8

    generator = torch.Generator().manual_seed(28)
    x = torch.randn(TOKENS, COLUMNS, generator=generator)
    weight = torch.randn(CHANNELS, COLUMNS, generator=generator)
    columns = torch.tensor(WIDE)
    x[:, columns] *= LOUD
    with target_call("the INT8 product with wide columns"):
        actual = int8.linear(x, int8.keep_wide(weight, columns))
    exact = x.double() @ weight.double().T
    narrow_x, narrow_w = (t.index_fill(1, columns, 0.0).double() for t in (x, weight))
    x_step, w_step = (t.abs().amax(dim=1, keepdim=True) / 127 for t in (narrow_x, narrow_w))
    rounding = (
        narrow_x.abs().sum(1, keepdim=True) @ w_step.T / 2
        + x_step @ narrow_w.abs().sum(1, keepdim=True).T / 2
        + COLUMNS * x_step @ w_step.T / 4
    )
    share = (actual.double() - exact).abs() / (rounding + SLACK * (x.double().abs() @ weight.double().abs().T))
    row, channel = divmod(int(share.argmax()), CHANNELS)
    assert share.max() <= 1, (
        f"row {row}, channel {channel} is {actual[row, channel]:.7g} instead of {exact[row, channel]:.7g}, "
        f"{share.max():.3g} times the rounding of its narrow columns"
    )
    assert share.max() > 0.01, "no narrow column was rounded: nothing was checked"
    with target_call("the INT8 product without"):
        plain = int8.linear(x, int8.quantize(weight))
    gain = float((plain - exact).abs().max() / (actual - exact).abs().max())
    assert gain > 10, f"wide columns lower the error only {gain:.2g} times: they are no outliers, nothing was checked"
    record_property(
        "evidence", f"{100 * share.max():.0f}% of the allowed rounding, {gain:.0f} times closer than without"
    )
