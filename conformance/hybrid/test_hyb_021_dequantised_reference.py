"""HYB-021."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

LENGTH = 96


@check(
    "HYB-021",
    feature="int8",
    bound="|y − K·x·w| <= Σ ½ s_x |w|: half a step of rounding the turned input (of a second digit's step where there "
    "is one), w the weights that the integers stand for; and 1e-5 of Σ|x||w| for fp32",
    sources=(
        "https://github.com/pytorch/pytorch/issues/103646",
        "https://github.com/spcl/QuaRot/issues/4",
    ),
)
def test_hyb_021(int8_recipe: InProcess, record_property: Callable[[str, object], None]) -> None:
    """Every matrix of the INT8 model computes what its dequantised weights say, on the model's own inputs

    Weights are taken as they are, so nothing is excused by them: what is left is the rounding of activations. The
    message names the matrix. Look at the input's rotation, at the scale of the token, and at sums that saturate.
    """
    from gaugeblock.fixtures.targets.inprocess import held_out_prompts
    from gaugeblock.fixtures.targets.int8_inputs import matrix_inputs, rounding_share

    shares = {}
    for name, (x, weight) in matrix_inputs(int8_recipe, held_out_prompts(int8_recipe.folder, LENGTH, 1)[0]).items():
        share = rounding_share(x, weight)
        token, channel = divmod(int(share.argmax()), share.shape[1])
        assert share.max() <= 1, (
            f"{name}: token {token}, channel {channel} is {share.max():.3g} times the rounding of its input away from "
            "what the dequantised weights give"
        )
        shares[name] = float(share.max())
    assert len(shares) > 4, f"only {len(shares)} matrices were seen"
    assert max(shares.values()) > 0.01, "no activation was rounded: nothing was checked"
    record_property("evidence", f"{len(shares)} matrices, at most {100 * max(shares.values()):.0f}% of the rounding")
