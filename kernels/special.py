"""Special functions as the single instructions that the hardware has for them.

Triton's ``exp`` and ``/`` take care of results and divisors at the ends of fp32's range, which doubles the instructions
of a kernel that does little else. What is smaller than 2⁻¹²⁶ is zero here. Interpreted, these are the exact functions.
"""

from __future__ import annotations

from gaugeblock.kernels.runtime import INTERPRETED, inline, tl

_INTERPRETED = tl.constexpr(INTERPRETED)  # kernels read no other kind of global


@inline
def exp(x: tl.tensor) -> tl.tensor:
    """Return exp(x) of fp32 ``x``: relative error 2|x|·2⁻²⁴ for the rounded argument and 2⁻²² for the instruction."""
    if _INTERPRETED:
        return tl.exp(x)
    return exp2(x * 1.4426950216293335)  # log₂ e in fp32


@inline
def exp2(x: tl.tensor) -> tl.tensor:
    """Return 2ˣ of fp32 ``x``, with a relative error of at most 2⁻²²; compiled only."""
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)


@inline
def exp_of(x: tl.tensor, source: tl.constexpr) -> tl.tensor:
    """Return exp(x) in fp32 for scores of the dtype ``source``; what is below 2⁻¹²⁶ is zero, which spares instructions.

    The rounded product x·log₂e alone costs a result of fp32 some of its last bits; 16 bits do not see it.
    """
    if _INTERPRETED:
        return tl.exp(x)
    if source == tl.float32:
        x = tl.maximum(x, -200.0, propagate_nan=tl.PropagateNan.ALL)  # −inf − (−inf) below would be NaN
    scaled = x * 1.4426950216293335  # log₂ e in fp32
    y = exp2(scaled)
    if source == tl.float32:
        rest = tl.fma(x, 1.4426950216293335, -scaled) + x * 1.9259629890911e-08
        y = tl.fma(y, rest * 0.6931471805599453, y)  # 2ʳ ≈ 1 + r·ln 2
    return y


@inline
def reciprocal(x: tl.tensor) -> tl.tensor:
    """Return 1/x of fp32 ``x``, with an error of at most one unit in the last place."""
    if _INTERPRETED:
        return 1.0 / x
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
