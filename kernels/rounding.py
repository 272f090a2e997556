"""From the storage dtype to fp32 and, with the one rounding at the end of every kernel, back.

Compiled, both are plain casts. Triton's interpreter (3.9.0) gets bf16 wrong in both directions: fp32 to bf16
truncates, an error of up to one unit in the last place and always towards zero, and subnormal numbers come out as
others. There the bits are moved by hand.
"""

from __future__ import annotations

from gaugeblock.kernels.runtime import INTERPRETED, inline, tl

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global


@inline
def widened(value: tl.tensor) -> tl.tensor:
    """Return ``value`` in fp32, exactly."""
    if _INTERPRETED:  # noqa: SIM102 # a condition of its own, so that it is static when compiled
        if value.dtype == tl.bfloat16:
            return (value.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return value.to(tl.float32)


@inline
def rounded(value: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """Return fp32 ``value`` in ``dtype``, rounded to nearest, ties to even."""
    if _INTERPRETED:  # noqa: SIM102 # the same
        if dtype == tl.bfloat16:
            bits = value.to(tl.int32, bitcast=True)
            nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            quiet_nan = (bits >> 16) | 0x40
            return tl.where(value == value, nearest, quiet_nan).to(tl.int16).to(tl.bfloat16, bitcast=True)
    return value.to(dtype)
