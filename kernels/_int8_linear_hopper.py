"""The INT8 linear layer for many tokens on Hopper: loads, products and stores run side by side.

What the kernel of :mod:`gaugeblock.kernels._int8_linear_tiles` leaves to Triton is written out here. A multiprocessor
holds one program, which walks over tiles of the result, and a program has three parts:

- The *producer*, one warp, names boxes of ``x`` and ``weight`` to the tensor memory accelerator, which lands them in a
  ring of stages in shared memory, 128 of the depth each. It never waits for a product unless the ring is full, and
  goes on into the next tile while this one is still multiplied and written.
- Two *consumers*, four warps each, multiply the two halves of a tile out of the same stages. One sum of 128×256 int32
  is 128 registers of each of their 256 threads: as large as a tile gets while registers remain for the rest, and a
  tile of 128×128 would ask the L2 cache for a third more bytes a product.

Each stage has two barriers. *Full*: the producer announces how many bytes are on their way, the accelerator counts them
off, and both consumers may read. *Empty*: each consumer arrives once its products have read the stage, and when both
have, the producer may fill it again. A consumer ends a tile by itself: the scales and biases of its half were asked for
before the first product; results go 32 columns at a time to one of two boxes in shared memory, from where the
accelerator stores them, leaving out what lies outside of ``out``, while the next 32 are made.

On an H200 4096×4096×4096 into bf16 takes 90 µs (1530 TOP/s), Triton's own pipeline 113. Halves one below the other,
64×256 each, took 91; a small tile is halved that way, as products of 64 columns would read ``x`` too often.

It is written in Gluon, which Triton calls experimental; where Gluon, the card, the layout or the output's dtype does
not fit (:func:`fits`), the other kernels take over, which compute the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from gaugeblock.kernels._int8_linear_gemv import aligned
from gaugeblock.kernels.runtime import runs_on_hopper

STEP = 128  # elements of the summed index a stage: the widest swizzle
SLICE = 32  # columns of the result that are written at once


@dataclass(frozen=True)
class HopperConfig:
    """``rows`` tokens × ``channels`` a tile, ``stages`` in the ring.

    The second consumer takes the half of the tile that is ``below``, or else the one beside it. ``group``: so many rows
    of tiles are visited together, for the L2 cache.
    """

    rows: int
    channels: int
    stages: int
    below: bool = False
    group: int = 8


def fits(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> bool:
    """Return whether the kernel takes ``x`` ``[rows, depth]``, ``weight`` ``[columns, depth]``, ``out``, of any sizes.

    Rows must begin at multiples of 16 bytes, as the tensor memory accelerator wants them. An ``out`` of fp32 would need
    the room of a stage, and then the ring is too short.
    """
    fine = out.element_size() == 2 and all(aligned(tensor) for tensor in (x, weight, out))
    return fine and runs_on_hopper("gaugeblock.kernels._int8_linear_hopper_gluon", x.device.index or 0)


def launch_hopper(
    x: torch.Tensor,
    x_scale: torch.Tensor,
    weight: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor,
    config: HopperConfig,
) -> None:
    """Write ``out`` ``[rows, columns]``, rows > 0, of what fits; ``x_scale`` ``[rows]`` of any stride."""
    from gaugeblock.kernels import _int8_linear_hopper_gluon as kernel

    (rows, depth), columns = x.shape, weight.shape[0]
    tiles = -(-rows // config.rows) * -(-columns // config.channels)
    down, across = (2, 1) if config.below else (1, 2)
    half = config.rows // down, config.channels // across
    kernel._int8_linear_hopper_kernel[(min(tiles, _processors(x.device.index or 0)),)](
        kernel.boxes(x, half[0], STEP),
        kernel.boxes(weight, half[1], STEP),
        kernel.boxes(out, half[0], SLICE),
        x_scale,
        w_scale,
        bias,
        x_scale.stride(0),
        rows,
        columns,
        depth,
        ROWS=half[0],
        CHANNELS=half[1],
        DOWN=down,
        ACROSS=across,
        STAGES=config.stages,
        GROUP=config.group,
        num_warps=4,
    )


@cache
def _processors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
