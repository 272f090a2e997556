"""HYB-024."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

LOUD, TOKENS, LEAST = 100.0, 12, 3.0


@check(
    "HYB-024",
    feature="int8",
    bound=f"error at least {LEAST:g} times smaller than with one scale over the loud channel, which sets a step of "
    f"{LOUD:g} / 127, and spread over n channels one of √2 / √n of that. Measured 4.9; what is left is the weights'",
    sources=("https://arxiv.org/abs/2208.07339", "https://arxiv.org/abs/2404.00456"),
)
def test_hyb_024(inprocess: InProcess, int8_recipe: InProcess, record_property: Callable[[str, object], None]) -> None:
    """A loud channel in down's input does not make all other channels coarse

    Behind the gated activation a few channels are a hundred times as loud as the others, and one scale a token is
    theirs. They are spread over all channels, or kept apart; rounded with the rest they cost what INT8 can represent.
    """
    import torch

    from gaugeblock.fixtures.targets.inprocess import target_call
    from gaugeblock.reference.hybrid.int8 import Int8Matrix, linear, quantize
    from gaugeblock.reference.hybrid.rotation import rotate_stream

    generator = torch.Generator().manual_seed(24)
    rotated, _ = rotate_stream(inprocess.weights)
    gains: list[float] = []
    for number, (ours, exact) in enumerate(zip(int8_recipe.weights.layers, rotated.layers, strict=True)):
        matrix: object = ours.down
        assert isinstance(matrix, Int8Matrix), f"down of layer {number} is not in INT8"
        x = torch.randn(TOKENS, exact.down.shape[1], generator=generator)
        x[:, 5 + number] = LOUD
        with target_call("the INT8 product of a loud channel"):
            with_recipe = linear(x, matrix)
        wanted = x @ exact.down.t()
        plain = quantize(exact.down)
        errors = [float((product - wanted).norm()) for product in (linear(x, plain), with_recipe)]
        gains.append(errors[0] / errors[1])
        assert gains[-1] >= LEAST, (
            f"layer {number}: a channel {LOUD:g} times as loud makes the others coarse: the error is "
            f"{gains[-1]:.2g} times smaller than with one scale over all of them"
        )
    record_property("evidence", f"error {min(gains):.3g} to {max(gains):.3g} times smaller")
