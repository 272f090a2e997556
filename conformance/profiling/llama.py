"""Fused ops in the decoder layers that Llama, Mistral, Qwen, SmolLM and relatives share: norms and rotary embedding."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from gaugeblock.conformance.profiling.patching import Call, Patches


def _decoder_layers(model: Any) -> list[Any]:
    """Return the layers of the pre-norm form: two norms, attention, a feed-forward block, two residual sums."""
    needed = {"input_layernorm", "post_attention_layernorm", "self_attn", "mlp"}
    layers = []
    for module in model.modules():
        names = {name for name, _ in module.named_children()}
        # more norms (Gemma 2 and 3) or scaled residuals (Granite) make another function of the same parts
        if needed <= names and not any("feedforward_layernorm" in n for n in names):
            norms = (module.input_layernorm, module.post_attention_layernorm)
            if not hasattr(module, "residual_multiplier") and all(map(_plain_rmsnorm, norms)):
                layers.append(module)
    return layers


@torch.inference_mode()
def _plain_rmsnorm(norm: Any) -> bool:
    """Whether a module computes x / rms(x) · weight: names alone do not tell (Gemma multiplies by 1 + weight)."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or _epsilon(norm) is None:
        return False
    x = torch.linspace(-1, 1, weight.numel(), device=weight.device, dtype=weight.dtype)[None]  # [1, hidden]
    want = nn.functional.rms_norm(x.double(), (weight.numel(),), weight.double(), _epsilon(norm))
    error = (norm(x).double() - want).norm() / want.norm().clamp_min(1e-30)
    return bool(error < 4 * torch.finfo(weight.dtype).eps)


def _epsilon(norm: Any) -> float | None:
    value = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return float(value) if value else None


def install_add_rmsnorm(model: Any, call: Call, patches: Patches) -> int:
    """Fuse each residual sum with the norm behind it, also across the boundary of two layers.

    A layer then hands on its feed-forward output alone and leaves the other summand to the next norm. The first norm of
    the model has no sum before it and stays.
    """
    layers = _decoder_layers(model)
    final = getattr(getattr(model, "model", None), "norm", None)
    if not layers or final is None or not _plain_rmsnorm(final):
        return 0
    pending: list[torch.Tensor] = []  # the residual that awaits the next norm: at most one

    def norm(module: Any, x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result: tuple[torch.Tensor, torch.Tensor] = call(x, residual, module.weight, _epsilon(module))
        return result

    def forward_of(layer: Any, opens: bool) -> Call:
        def forward(hidden_states: torch.Tensor, **arguments: Any) -> torch.Tensor:
            first = layer.input_layernorm
            if opens:
                pending.clear()  # what a forward pass left behind that did not come to its end
            if pending:
                x, residual = norm(first, hidden_states, pending.pop())
            else:
                x, residual = first(hidden_states), hidden_states
            attended = layer.self_attn(hidden_states=x, **arguments)[0]
            x, residual = norm(layer.post_attention_layernorm, attended, residual)
            pending.append(residual)
            out: torch.Tensor = layer.mlp(x)
            return out

        return forward

    for layer in layers:
        patches.set(layer, "forward", forward_of(layer, layer is layers[0]))
    patches.set(final, "forward", lambda hidden: norm(final, hidden, pending.pop())[0])
    return 2 * len(layers)


def install_rope(model: Any, call: Call, patches: Patches) -> int:
    """Rotate q and k in one launch, by a table in fp32.

    The model's own rotary module still computes the angles, so that every scaling of them stays; its cosines and sines
    become one table a forward pass, with a row a token.
    """
    rotary = getattr(getattr(model, "model", None), "rotary_emb", None)
    module = sys.modules[type(model).__module__]
    original = getattr(module, "apply_rotary_pos_emb", None)
    places = sum(type(part).__name__.endswith("Attention") for part in model.modules())
    if rotary is None or original is None:
        return 0
    angles = rotary.forward

    def table(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = angles(x.new_empty(0, dtype=torch.float32), position_ids)  # [batch, tokens, rotary_dim]
        half = cos.shape[-1] // 2
        rows = (
            torch.cat([cos[..., :half], sin[..., :half]], dim=-1).flatten(0, 1).float()
        )  # [batch · tokens, rotary_dim]
        return rows.float(), torch.arange(len(rows), device=rows.device)

    def rotate(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *rest: Any, **more: Any) -> Any:
        if sin.is_floating_point():  # another model of the same class, whose rotary module was not replaced
            return original(q, k, cos, sin, *rest, **more)
        flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k)]  # [batch · tokens, heads, head_dim]
        batch, _, tokens, _ = q.shape
        return tuple(y.unflatten(0, (batch, tokens)).transpose(1, 2) for y in call(*flat, sin, cos))

    patches.set(rotary, "forward", table)
    patches.set(module, "apply_rotary_pos_emb", rotate)
    return places
