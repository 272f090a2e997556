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
    allow descriptors. ``early``: the product is launched while the layer norm still runs, fetches ``ahead`` bytes of
    each weight row into the L2 cache, then waits.
    """

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    group: int = 8
    bulk: bool = False
    early: bool = False
    ahead: int = 0


STREAM_FEW = Config(16, 128, 128, 4, 5, early=True, ahead=512)
STREAM = Config(64, 128, 128, 4, 4, bulk=True, early=True, ahead=256)
TILES = Config(128, 128, 64, 8, 3)
BULK = Config(128, 256, 64, 8, 3, bulk=True)
PLAIN = Config(32, 64, 32, 4, 2)
CONFIGS = (PLAIN, STREAM_FEW, BULK, TILES, STREAM)
"""Every configuration that :func:`config_for` may choose."""


def config_for(rows: int, dtype: torch.dtype) -> Config:
    """Return the tiles for ``rows`` of x.

    Up to 128 rows the time is that of reading the weights once: few rows of tiles, deep loads. On an H100 at 4096 →
    16384 in bf16 the whole op takes 1.02 to 1.03 times cuBLAS' bare product at 1, 16 and 64 rows; there ``ahead`` is
    worth 2%. fp32 is computed outside the tensor cores (theirs is TF32) and has one tile. So have sizes and strides
    that are no multiples of 8: their loads are narrow, and larger tiles of them do not fit into registers.
    """
    if dtype == torch.float32:
        return PLAIN
    if rows <= 128:
        return STREAM_FEW if rows <= 16 else STREAM
    return BULK


def is_wide(*sizes: int) -> bool:
    """Return whether all sizes and strides let 16 bytes be loaded at once."""
    return all(size % 8 == 0 for size in sizes)


def runs(config: Config, dtype: torch.dtype, wide: bool) -> bool:
    """Return whether tiles can be used; where not, ``PLAIN`` takes their place."""
    return config == PLAIN or (dtype != torch.float32 and wide)


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
        WIDE=hidden % 8 == 0 and x.stride(0) % 8 == 0,
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
    wide = is_wide(hidden, out.shape[1], weight.stride(0), out.stride(0))
    library = config is None and library_fits(x, weight, out, activation)
    config = config or config_for(rows, x.dtype)
    config = config if runs(config, x.dtype, wide) else PLAIN
    padded = -(-hidden // 8) * 8  # descriptors and wide loads want rows of a multiple of 16 bytes
    normalised = torch.empty((rows, padded), dtype=x.dtype, device=x.device)[:, :hidden]
    bulk = config.bulk and not library and all(describable(tensor) for tensor in (normalised, weight, out))
    if config == BULK and not bulk:
        config = TILES
    early = config.early and not INTERPRETED and not library
    with quiet():
        normalise(x, gain, shift, eps, normalised, early)
        if library:
            _call_library(normalised, weight, bias, out, activation)
        elif bulk:
            _launch_bulk(normalised, weight, bias, out, activation, config)
        else:
            _launch_tiles(normalised, weight, bias, out, activation, config, wide)


def library_fits(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, activation: str) -> bool:
    """Return whether cuBLASLt computes the product with bias and activation, rounded once, and as fast as it can.

    On an H100 at 4096 × 4096 → 16384 that is 1.01 times the bare product's time, 1.04 to 1.05 with the layer norm.
    It has epilogues for tanh GELU and ReLU, not for erf and SiLU. Fewer than 2²² outputs leave multiprocessors idle;
    there it might split the sum and add the parts in the storage dtype.
    """
    fitting = weight.is_cuda and x.dtype != torch.float32 and activation in ("gelu_tanh", "relu", "none")
    return fitting and x.shape[0] > 64 and out.numel() >= 2**22 and out.is_contiguous() and describable(weight)


def _call_library(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, out: torch.Tensor, activation: str
) -> None:
    if activation == "none":
        torch.addmm(bias, x, weight.t(), out=out)
    else:
        torch._addmm_activation(bias, x, weight.t(), use_gelu=activation == "gelu_tanh", out=out)


def describable(tensor: torch.Tensor) -> bool:
    """Return whether a tensor descriptor can describe a matrix: 16-byte aligned rows."""
    size = tensor.element_size()
    return tensor.data_ptr() % 16 == 0 and tensor.stride(0) * size % 16 == 0 and tensor.stride(1) == 1


def constants_for(
    config: Config, hidden: int, activation: str, *, wide: bool = True, programs: int = 0
) -> tuple[Any, dict[str, Any], dict[str, list[int]]]:
    """Return the kernel of a configuration, its constants, and the blocks of its descriptors by argument.

    ``wide``: all sizes and strides are multiples of 8. ``programs``: of the form with descriptors, 0 for the other.
    """
    early = config.early and not INTERPRETED
    fetching = early and wide and 2 * hidden >= config.ahead
    constants: dict[str, Any] = {"ACTIVATION": activation, "GROUP": config.group, "EARLY": early}
    constants |= {"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k}
    constants["AHEAD"] = config.ahead // 128 if fetching else 0
    if not programs:
        if INTERPRETED:
            constants["BLOCK_K"] = min(next_power_of_two(hidden), 512)
        even = wide and hidden % constants["BLOCK_K"] == 0
        return linear_kernel, constants | {"WIDE": wide, "EVEN": even}, {}
    constants["PROGRAMS"] = programs
    blocks = {
        "x_tiles": [config.block_m, config.block_k],
        "weight_tiles": [config.block_n, config.block_k],
        "out_tiles": [config.block_m, config.block_n],
    }
    return descriptor_kernel, constants, blocks


def _launch_tiles(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor,
    activation: str,
    config: Config,
    wide: bool,
) -> None:
    (rows, hidden), columns = x.shape, weight.shape[0]
    _, constants, _ = constants_for(config, hidden, activation, wide=wide)
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
    _, constants, blocks = constants_for(config, hidden, activation, programs=programs)
    described = {
        name: TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), blocks[name])
        for name, tensor in {"x_tiles": x, "weight_tiles": weight, "out_tiles": out}.items()
    }
    descriptor_kernel[(programs,)](
        **described,
        weight_ptr=weight,
        bias_ptr=bias,
        weight_stride=weight.stride(0),
        rows=rows,
        columns=columns,
        hidden=hidden,
        **constants,
        **_options(config),
    )


def _options(config: Config) -> dict[str, Any]:
    options: dict[str, Any] = {"num_warps": config.warps, "num_stages": config.stages}
    return options | ({"launch_pdl": True} if config.early and not INTERPRETED else {})


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
