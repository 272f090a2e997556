"""HYB-026."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from torch import Tensor

    from gaugeblock.fixtures.targets.int8_target import Int8Target

COLUMNS, CHANNELS = 96, 40


@check(
    "HYB-026",
    feature="int8",
    bound="exact: the same numbers give the same bits, wherever they lie; operands are equal in every bit afterwards",
    sources=(
        "https://github.com/pytorch/pytorch/issues/75009",
        "https://github.com/pytorch/executorch/pull/22192",
    ),
)
def test_hyb_026(int8_linear: Int8Target, record_property: Callable[[str, object], None]) -> None:
    """An INT8 product reads operands of any stride and leaves them as they are

    The residual stream and one half of a fused projection are views; what reads their memory as if it were dense takes
    other numbers. What divides by the scale in place spoils the residual for all that follows.
    """
    import torch

    from gaugeblock.fixtures.targets.inprocess import target_call

    generator = torch.Generator().manual_seed(26)
    weight = torch.randn(CHANNELS, COLUMNS, generator=generator)
    with target_call("quantising a weight"):
        matrix = int8_linear.quantize(weight)
    for name, x in _views(generator).items():
        before = x.clone()
        with target_call(f"{name}: the INT8 product"):
            wanted = int8_linear.linear(before.contiguous(), matrix).clone()
            actual = int8_linear.linear(x, matrix)
        assert torch.equal(x, before), f"{name}: the product changed its input"
        assert torch.equal(actual, wanted), (
            f"{name}: strides {x.stride()} give other numbers than the same values in dense memory, by up to "
            f"{(actual - wanted).abs().max():.3g}"
        )
    turned = weight.T.contiguous().T  # the same numbers, columns first
    x = torch.randn(3, COLUMNS, generator=generator)
    with target_call("a weight that lies columns first: the INT8 product"):
        wanted = int8_linear.linear(x, matrix)
        actual = int8_linear.linear(x, int8_linear.quantize(turned))
    assert torch.equal(actual, wanted), "a weight that lies columns first gives other numbers than in dense memory"
    assert torch.equal(turned, weight), "quantising changed the weight"
    record_property(
        "evidence", f"{len(_views(generator))} views of activations and one of a weight, equal in every bit"
    )


def _views(generator: object) -> dict[str, Tensor]:
    """Return activations [tokens, COLUMNS] by where they lie."""
    import torch

    assert isinstance(generator, torch.Generator)
    fused = torch.randn(5, 2 * COLUMNS, generator=generator)
    return {
        "the second half of a fused projection": fused[:, COLUMNS:],
        "every other token": torch.randn(8, COLUMNS, generator=generator)[::2],
        "columns first": torch.randn(COLUMNS, 3, generator=generator).T,
        "one token of many": torch.randn(6, 2, COLUMNS, generator=generator)[3:4, 1],
        "one token repeated": torch.randn(1, COLUMNS, generator=generator).expand(4, COLUMNS),
    }
