"""How the kernels of :mod:`gaugeblock.kernels.ln_linear` are launched: tiles, and which of them for which shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from gaugeblock.kernels._ln_linear_kernels import descriptor_kernel, linear_kernel, normalise_kernel
from gaugeblock.kernels.runtime import INTERPRETED, next_power_of_two, quiet


@dataclass(frozen=True)
class Config:
    """One way to launch the matrix product.

    A tile is ``block_m`` rows × ``block_n`` columns, summed ``block_k`` at a time. ``group``: so many rows of tiles are
    visited together, for the L2 cache. ``bulk``: tensor descriptors and one program a multiprocessor, where the strides
    allow descriptors. ``halves``: a tile is stored in two halves. ``ahead``: the product is launched while the layer
    norm still runs, and fetches so many bytes of each weight row into the L2 cache before it waits.
    """

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    group: int = 8
    bulk: bool = False
    halves: bool = False
    flatten: bool = True
    specialise: bool = False
    ahead: int = 0


STREAM_FEW = Config(16, 128, 128, 4, 4, ahead=1024)
STREAM = Config(64, 128, 128, 8, 4, ahead=1024)
TILES = Config(128, 128, 64, 8, 3)
BULK = Config(128, 256, 64, 8, 3, bulk=True)
SINGLE = Config(64, 64, 32, 4, 3)
CONFIGS = (SINGLE, STREAM_FEW, BULK, TILES, STREAM)
"""Every configuration that :func:`config_for` may choose."""


def config_for(rows: int, dtype: torch.dtype) -> Config:
    """Return the tiles for ``rows`` of x.

    Up to 64 rows the time is that of reading the weights once: one row of tiles, deep loads. fp32 is computed outside
    the tensor cores (theirs is TF32) and has one tile.
    """
    if dtype == torch.float32:
        return SINGLE
    if rows <= 64:
        return STREAM_FEW if rows <= 16 else STREAM
    return BULK


def normalise(
    x: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor, eps: float, out: torch.Tensor, early: bool
) -> None:
    """Write the layer norm of ``x`` ``[rows, hidden]`` into ``out``, rounded to its dtype."""
    rows, hidden = x.shape
    cols = next_power_of_two(hidden)
    height = max(1, (16384 if INTERPRETED else 1024) // cols)
    warps = min(max(height * cols // 512, 1), 8) if cols <= 8192 else min(cols // 1024, 32)
    normalise_kernel[(-(-rows // height),)](
        x,
        gain,
        shift,
        out,
        x.stride(0),
        out.stride(0),
        rows,
        hidden,
        eps,
        ROWS=height,
        COLS=cols,
        EARLY=early,
        num_warps=warps,
    )


def launch(
    x: torch.Tensor,
    gain: torch.Tensor,
    shift: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor,
    eps: float,
    activation: str,
    config: Config | None,
) -> None:
    """Launch both kernels on ``x`` ``[rows, hidden]`` and ``out`` ``[rows, columns]``, columns contiguous."""
    rows, hidden = x.shape
    if out.numel() == 0:
        return
    config = config or config_for(rows, x.dtype)
    if x.dtype == torch.float32:
        config = SINGLE
    padded = -(-hidden // 8) * 8  # descriptors want rows of a multiple of 16 bytes
    normalised = torch.empty((rows, padded), dtype=x.dtype, device=x.device)[:, :hidden]
    bulk = config.bulk and all(describable(tensor) for tensor in (normalised, weight, out))
    early = config.ahead > 0 and not INTERPRETED
    with quiet():
        normalise(x, gain, shift, eps, normalised, early)
        (_launch_bulk if bulk else _launch_tiles)(normalised, weight, bias, out, activation, config)


def describable(tensor: torch.Tensor) -> bool:
    """Return whether a tensor descriptor can describe a matrix: 16-byte aligned rows."""
    size = tensor.element_size()
    return tensor.data_ptr() % 16 == 0 and tensor.stride(0) * size % 16 == 0 and tensor.stride(1) == 1


def constants_for(
    config: Config, rows: int, hidden: int, activation: str, programs: int = 0, itemsize: int = 2
) -> tuple[Any, dict[str, Any], dict[str, list[int]]]:
    """Return the kernel of a configuration, its constants, and the blocks of its descriptors by argument."""
    constants: dict[str, Any] = {"ACTIVATION": activation, "GROUP": config.group}
    constants |= {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k}
    if not config.bulk or not programs:
        if INTERPRETED:
            constants["BLOCK_K"] = min(next_power_of_two(hidden), 512)
        constants["EVEN"] = hidden % constants["BLOCK_K"] == 0
        constants["ONCE"] = rows <= config.block_m
        constants["AHEAD"] = 0 if INTERPRETED else min(config.ahead, hidden * itemsize) // 128
        return linear_kernel, constants, {}
    constants |= {"PROGRAMS": programs, "HALVES": config.halves, "FLATTEN": config.flatten}
    constants |= {"SPECIALISE": config.specialise, "EARLY": config.ahead > 0 and not INTERPRETED}
    width = config.block_n // 2 if config.halves else config.block_n
    blocks = {
        "x_tiles": [config.block_m, config.block_k],
        "weight_tiles": [config.block_n, config.block_k],
        "out_tiles": [config.block_m, width],
    }
    return descriptor_kernel, constants, blocks


def _launch_tiles(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, out: torch.Tensor, activation: str, config: Config
) -> None:
    (rows, hidden), columns = x.shape, weight.shape[0]
    _, constants, _ = constants_for(config, rows, hidden, activation, itemsize=x.element_size())
    linear_kernel[(-(-rows // config.block_m) * -(-columns // config.block_n),)](
        x,
        weight,
        bias,
        out,
        x.stride(0),
        weight.stride(0),
        out.stride(0),
        rows,
        columns,
        hidden,
        **constants,
        **_options(config),
    )


def _launch_bulk(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, out: torch.Tensor, activation: str, config: Config
) -> None:
    (rows, hidden), columns = x.shape, weight.shape[0]
    tiles = -(-rows // config.block_m) * -(-columns // config.block_n)
    programs = min(_multiprocessors(x.device), tiles)
    _, constants, blocks = constants_for(config, rows, hidden, activation, programs)
    described = {
        name: TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), blocks[name])
        for name, tensor in {"x_tiles": x, "weight_tiles": weight, "out_tiles": out}.items()
    }
    descriptor_kernel[(programs,)](
        **described, bias_ptr=bias, rows=rows, columns=columns, hidden=hidden, **constants, **_options(config)
    )


def _options(config: Config) -> dict[str, Any]:
    options: dict[str, Any] = {"num_warps": config.warps, "num_stages": config.stages}
    return options | ({"launch_pdl": True} if config.ahead and not INTERPRETED else {})


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
