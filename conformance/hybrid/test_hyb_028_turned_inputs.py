"""HYB-028."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

COLUMNS, CHANNELS, TOKENS = 160, 32, 5
LOUD, CHANNEL = 400.0, 37
SLACK = 1e-5  # of Σ|x||w| over turned operands: fp32 rounding of the rotation, in any order


@check(
    "HYB-028",
    feature="int8",
    bound="|y − x·w| <= rounding of the turned operands as in HYB-002, and 1e-5 of Σ|x||w| for a rotation in fp32",
    sources=("https://arxiv.org/abs/2404.00456", "https://github.com/ModelCloud/GPTQModel/pull/2980"),
)
def test_hyb_028(inprocess: InProcess, record_property: Callable[[str, object], None]) -> None:
    """A rotated INT8 layer computes what the unrotated one does, with a loud channel spread over all

    Rotation of weights and of inputs must cancel. One that is left out, done twice or the wrong way round gives another
    layer, which still answers fluently in the logits' mean.
    """
    from dataclasses import replace

    import torch

    from gaugeblock.fixtures.targets.inprocess import target_call
    from gaugeblock.reference.hybrid import int8
    from gaugeblock.reference.hybrid.rotation import kronecker

    generator = torch.Generator().manual_seed(28)
    x = torch.randn(TOKENS, COLUMNS, generator=generator)
    weight = torch.randn(CHANNELS, COLUMNS, generator=generator)
    x[:, CHANNEL] *= LOUD
    turn = kronecker(COLUMNS)
    whole = torch.kron(*(factor.double() for factor in turn))  # [in, in], by definition
    with target_call("the INT8 product of turned inputs"):
        matrix = replace(int8.quantize((weight.double() @ whole.T).float()), turn=turn)
        actual = int8.linear(x, matrix)
    exact = x.double() @ weight.double().T
    turned_x, turned_w = x.double() @ whole.T, weight.double() @ whole.T
    x_step, w_step = (t.abs().amax(dim=1, keepdim=True) / 127 for t in (turned_x, turned_w))
    rounding = (
        turned_x.abs().sum(1, keepdim=True) @ w_step.T / 2
        + x_step @ turned_w.abs().sum(1, keepdim=True).T / 2
        + COLUMNS * x_step @ w_step.T / 4
    )
    share = (actual.double() - exact).abs() / (rounding + SLACK * (turned_x.abs() @ turned_w.abs().T))
    row, channel = divmod(int(share.argmax()), CHANNELS)
    assert share.max() <= 1, (
        f"row {row}, channel {channel} is {actual[row, channel]:.7g} instead of {exact[row, channel]:.7g}, "
        f"{share.max():.3g} times the rounding of its turned operands"
    )
    assert share.max() > 0.01, "nothing was rounded, nothing was checked"
    spread = float(x_step.max() / (x.abs().amax() / 127))
    assert spread < 0.25, f"the rotation leaves {spread:.2g} of the largest value in one channel: it turns nothing"
    record_property(
        "evidence", f"{100 * share.max():.0f}% of the allowed rounding; steps {spread:.2f} of unturned ones"
    )
