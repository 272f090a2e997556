"""The fused ops that can be put into a transformers model."""

from __future__ import annotations

from typing import Any

from gaugeblock.conformance.profiling.attention import install_decode_attention, install_extend_attention
from gaugeblock.conformance.profiling.feed_forward import (
    install_gelu_and_mul,
    install_ln_linear,
    install_silu_and_mul,
)
from gaugeblock.conformance.profiling.llama import install_add_rmsnorm, install_rope
from gaugeblock.conformance.profiling.patching import Fusion, Patches, never

FUSIONS: tuple[Fusion, ...] = (
    Fusion("add_rmsnorm", "residual add and norm in one, across layers too", install_add_rmsnorm),
    Fusion("silu_and_mul", "gate and up as one product, then SiLU-and-mul", install_silu_and_mul),
    Fusion("gelu_and_mul", "gate and up as one product, then GELU-and-mul", install_gelu_and_mul),
    Fusion("rope", "q and k rotated in one launch", install_rope),
    Fusion("ln_linear", "LayerNorm within the product behind it", install_ln_linear),
    Fusion("decode_attention", "one query over a paged cache that is not copied", install_decode_attention, False),
    Fusion("extend_attention", "new tokens over a paged cache", install_extend_attention, False),
)


def available(model: Any) -> list[Fusion]:
    """Return the fusions that have a place in this model."""
    found = []
    for fusion in FUSIONS:
        patches = Patches()
        try:
            if fusion.install(model, never, patches):
                found.append(fusion)
        finally:
            patches.restore()
    return found
