"""Fused ops in feed-forward blocks: gated ones (Llama, Gemma), and LayerNorm, linear, activation (GPT-2, GPT-NeoX)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gaugeblock.conformance.profiling.patching import Call, Patches, never

SILU: dict[str, dict[str, Any]] = {"SiLU": {}, "SiLUActivation": {}}
GELU: dict[str, dict[str, Any]] = {
    "GELUActivation": {"approximate": "none"},
    "GELUTanh": {"approximate": "tanh"},
    "NewGELUActivation": {"approximate": "tanh"},
}
"""By the class of the activation: what the op is told of it."""
ACTIVATIONS = {
    "GELUActivation": "gelu",
    "GELU": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "SiLUActivation": "silu",
    "SiLU": "silu",
    "ReLU": "relu",
}
BLOCKS = (
    ("ln_2", "mlp", "c_fc", "c_proj"),  # GPT-2
    ("post_attention_layernorm", "mlp", "dense_h_to_4h", "dense_4h_to_h"),  # GPT-NeoX
)
"""Of a block: its norm, its feed-forward module, and that one's two products."""


def install_silu_and_mul(model: Any, call: Call, patches: Patches) -> int:
    """Fuse the SiLU of a gate with its product with up."""
    return _install_gated(model, call, patches, SILU)


def install_gelu_and_mul(model: Any, call: Call, patches: Patches) -> int:
    """Fuse the GELU of a gate, exact or by tanh, with its product with up."""
    return _install_gated(model, call, patches, GELU)


def _install_gated(model: Any, call: Call, patches: Patches, activations: dict[str, dict[str, Any]]) -> int:
    """Run gate and up as one product whose output the op takes, as serving engines lay it out.

    The two weights become views of one tensor: nothing is stored twice, and values stay bit for bit.
    """
    places = 0
    for mlp in model.modules():
        parts = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
        options = activations.get(type(getattr(mlp, "act_fn", None)).__name__)
        if not all(type(part) is nn.Linear for part in parts) or options is None:
            continue
        places += 1
        if call is not never:
            patches.set(mlp, "forward", _gated_forward(mlp, call, options))
    return places


def _gated_forward(mlp: Any, call: Call, options: dict[str, Any]) -> Call:
    weight = _side_by_side(mlp.gate_proj, mlp.up_proj, "weight")
    bias = _side_by_side(mlp.gate_proj, mlp.up_proj, "bias")

    def forward(x: torch.Tensor) -> torch.Tensor:
        assert weight is not None
        out: torch.Tensor = mlp.down_proj(call(nn.functional.linear(x, weight, bias), **options))
        return out

    return forward


def _side_by_side(gate: nn.Linear, up: nn.Linear, name: str) -> torch.Tensor | None:
    """Lay a parameter of two layers side by side and return both as one; the layers keep views of it."""
    first, second = getattr(gate, name), getattr(up, name)
    if first is None or second is None:
        return None
    adjacent = (
        first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
        and second.storage_offset() == first.storage_offset() + first.numel()
        and first.is_contiguous()
        and second.is_contiguous()
    )
    if adjacent:  # by an earlier replacement
        whole: torch.Tensor = first.data.as_strided((len(first) + len(second), *first.shape[1:]), first.stride())
        return whole
    both = torch.cat([first.data, second.data])
    first.data, second.data = both[: len(first)], both[len(first) :]
    return both


def install_ln_linear(model: Any, call: Call, patches: Patches) -> int:
    """Run a block's norm within its first product; the norm itself then hands its input through."""
    places = 0
    for block in model.modules():
        for norm_name, mlp_name, first_name, second_name in BLOCKS:
            norm, mlp = getattr(block, norm_name, None), getattr(block, mlp_name, None)
            act = ACTIVATIONS.get(type(getattr(mlp, "act", None)).__name__)
            first, second = getattr(mlp, first_name, None), getattr(mlp, second_name, None)
            if not isinstance(norm, nn.LayerNorm) or act is None or first is None or second is None:
                continue
            if norm.bias is None or first.bias is None:
                continue
            places += 1
            if call is not never:
                patches.set(norm, "forward", lambda x: x)
                patches.set(mlp, "forward", _normed_forward(norm, mlp, first, second, act, call))
    return places


def _normed_forward(norm: Any, mlp: Any, first: Any, second: Any, activation: str, call: Call) -> Call:
    # GPT-2's Conv1D keeps [hidden, columns]: its transpose is copied once, not in every call
    weight = first.weight.detach() if isinstance(first, nn.Linear) else first.weight.detach().t().contiguous()
    after = getattr(mlp, "dropout", nn.Identity())

    def forward(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = after(second(call(x, norm.weight, norm.bias, weight, first.bias, norm.eps, activation)))
        return out

    return forward
