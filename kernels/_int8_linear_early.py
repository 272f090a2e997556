"""The INT8 linear layer for up to 16 tokens whose weights are at rest: read while the kernel before still runs.

A decode step is a chain of short kernels. Launched while the one before still runs, a kernel may not touch what that
one writes, but weights are nobody's output: where the caller promises so, a program asks for all of its weights first,
into shared memory and registers, and only then waits for its activations. What remains behind the wait is to read the
few tokens, to multiply and to add up, while the next launch's weights are on their way. CUTLASS does the same in its
example 63 (``hopper_gemm_with_weight_prefetch``).

A program owns 64 channels and therefore almost a whole multiprocessor: half of the card serves a launch of 4096
channels, the other half the next, and the tokens, which every program reads, are read half as often as with 32. Each of
the eight warps multiplies its own 64 of every 512 elements, and the sums of the warps are added at the end: exactly, in
any order. Operands go from 16-byte loads into the tensor cores' registers as they are, in an order of the summed index
that is not memory's but is the same on both sides.

It is written in Gluon, which Triton calls experimental; where Gluon, the card, the layout or the depth does not fit
(:func:`fits`), the other kernels take over, which compute the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gaugeblock.kernels._int8_linear_gemv import aligned
from gaugeblock.kernels.runtime import runs_on_hopper

STEP = 512  # elements of the summed index that all warps do together
MOST_ROWS = 16
MOST_DEPTH = 4096  # as much as shared memory and registers hold of 64 channels
MOST_HELD = 7  # steps of 64 channels in shared memory


@dataclass(frozen=True)
class EarlyConfig:
    """``channels`` a program; ``flying``: steps of the activations that are under way at once."""

    channels: int
    flying: int


def fits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether the kernel takes ``x`` ``[rows, depth]`` and ``weight`` ``[columns, depth]``, any rows."""
    depth = x.shape[1]
    fine = depth % 16 == 0 and depth <= MOST_DEPTH and aligned(x) and aligned(weight)
    return fine and runs_on_hopper("gaugeblock.kernels._int8_linear_gluon", x.device.index or 0)


def launch_early(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor,
    config: EarlyConfig,
    at_rest: bool,
) -> None:
    """Write ``out`` ``[rows, columns]``, rows > 0; without ``at_rest`` the weights, too, are read behind the wait."""
    from gaugeblock.kernels import _int8_linear_gluon as kernel

    (rows, depth), columns = x.shape, weight.shape[0]
    height = 8 if rows <= 8 else MOST_ROWS
    steps = -(-depth // STEP)
    kernel._int8_early_kernel[(-(-columns // config.channels) * -(-rows // height),)](
        x,
        x_scale,
        weight,
        w_scale,
        bias,
        out,
        x.stride(0),
        x_scale.stride(0),
        weight.stride(0),
        out.stride(0),
        rows,
        columns,
        depth,
        ROWS=height,
        CHANNELS=config.channels,
        STEPS=steps,
        HELD=min(steps, MOST_HELD),
        FLYING=min(steps, config.flying),
        EARLY=at_rest,
        num_warps=8,
        launch_pdl=True,
    )
