"""HYB-002."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from torch import Tensor

    from gaugeblock.fixtures.targets.int8_target import Int8Target

WIDTHS = (64, 704, 1100)  # the last is wider than sums of INT8 products that fp32 holds exactly
SLACK = 1e-5  # of Σ|x||w|: fp32 rounding of the scales and of the result, far below half a step of INT8


@check(
    "HYB-002",
    feature="int8",
    bound="|y − x·w| <= Σ(½ s_w |x| + ½ s_x |w| + ¼ s_x s_w), s = max|·| / 127: half a step of rounding an operand",
    sources=(
        "https://github.com/pytorch/pytorch/issues/103646",
        "https://github.com/pytorch/ao/issues/4266",
        "https://github.com/1bit-MONSTER/1bit-MONSTER/issues/153",
    ),
)
def test_hyb_002(int8_linear: Int8Target, record_property: Callable[[str, object], None]) -> None:
    """An INT8 product is wrong by no more than the rounding of its operands

    Extremes show sums that saturate (u8 times s8 in pairs of 16 bits), channels of very different size show a scale
    that belongs to a neighbour. The message names the case, the row and the channel.
    """
    import torch

    from gaugeblock.fixtures.targets.inprocess import target_call

    worst = 0.0
    for name, x, weight in _cases():
        with target_call(f"{name}: the INT8 product"):
            actual = int8_linear.linear(x, int8_linear.quantize(weight))
        assert actual.shape == (len(x), len(weight)), f"{name}: shape {tuple(actual.shape)}"
        exact = x.double() @ weight.double().T
        share = (actual.double() - exact).abs() / _allowed(x.double(), weight.double())
        share = torch.where(share.isnan(), torch.full_like(share, torch.inf), share)
        row, channel = divmod(int(share.argmax()), len(weight))
        assert share.max() <= 1, (
            f"{name}: row {row}, channel {channel} is {actual[row, channel]:.6g} instead of {exact[row, channel]:.6g}, "
            f"{share.max():.3g} times the rounding of its operands"
        )
        worst = max(worst, float(share.max()))
    assert worst > 0.01, f"only {worst:.1e} of the allowed error is used: nothing was rounded, nothing was checked"
    record_property("evidence", f"{100 * worst:.0f}% of the allowed rounding is used")


def _cases() -> list[tuple[str, Tensor, Tensor]]:
    """(name, x [tokens, in], weight [out, in]) fp32."""
    import torch

    generator = torch.Generator().manual_seed(2)
    cases = []
    for width in WIDTHS:
        x, weight = (torch.randn(rows, width, generator=generator) for rows in (5, 24))
        sizes = 10.0 ** torch.linspace(-3, 3, 24)[:, None]
        outlier = x.clone()
        outlier[:, 7] *= 60
        zeros = x.clone()
        zeros[2] = 0
        cases += [
            (f"normal, {width} wide", x, weight),
            (f"channels of very different size, {width} wide", x, weight * sizes),
            (f"one outlier column, {width} wide", outlier, weight),
            (f"a row of zeros, {width} wide", zeros, weight),
            (f"all at the largest value, {width} wide", x.sign().abs() * 3, weight.sign() * 0.5),
        ]
    return cases


def _allowed(x: Tensor, weight: Tensor) -> Tensor:
    """Return the error that rounding may cause, [tokens, out] float64, from the definition of the two scales."""
    x_step = x.abs().amax(dim=1, keepdim=True) / 127  # [tokens, 1]
    w_step = weight.abs().amax(dim=1, keepdim=True).T / 127  # [1, out]
    x_sum, w_sum = x.abs().sum(dim=1, keepdim=True), weight.abs().sum(dim=1, keepdim=True).T
    rounding = x_sum * w_step / 2 + w_sum * x_step / 2 + x.shape[1] * x_step * w_step / 4
    return rounding + SLACK * (x.abs() @ weight.abs().T) + 1e-30
