"""Stand-ins for the peers' libraries: the documented signatures and shapes, computed by PyTorch in fp32.

They hold the adapters to what the libraries' own documentation says of arguments, where the libraries can't run.
"""

import sys
from types import ModuleType, SimpleNamespace

import torch
import torch.nn.functional as F  # noqa: N812 # the name that every PyTorch user knows


def add_rmsnorm(x, residual, weight, eps, enable_pdl=None):
    assert x.dim() == residual.dim() == 2
    residual.copy_(residual + x)
    wide = residual.float()
    x.copy_(wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.float())


def gated(activation):
    def act_and_mul(x, out=None):
        assert x.shape[-1] * x.element_size() % 16 == 0
        gate, up = x.float().chunk(2, -1)
        result = (activation(gate) * up).to(x.dtype)
        return result if out is None else out.copy_(result)

    return act_and_mul


def rotated(positions, query, key, head_size, cos_sin_cache, is_neox=True):
    """Shapes ``[tokens, heads · head_size]``; the cache holds the cosines in its first half."""
    assert query.dim() == key.dim() == 2
    cos, sin = cos_sin_cache[positions.long()].float().chunk(2, -1)  # [tokens, rotary_dim / 2]
    return tuple(_turned(t.view(len(t), -1, head_size), cos, sin, is_neox).view(t.shape) for t in (query, key))


def _turned(x, cos, sin, is_neox):
    wide, half = x.float().clone(), cos.shape[-1]
    first = slice(0, half) if is_neox else slice(0, 2 * half, 2)
    second = slice(half, 2 * half) if is_neox else slice(1, 2 * half, 2)
    a, b = wide[..., first].clone(), wide[..., second].clone()
    wide[..., first] = a * cos[:, None] - b * sin[:, None]
    wide[..., second] = b * cos[:, None] + a * sin[:, None]
    return wide.to(x.dtype)


def rotary_in_storage_dtype(positions, query, key, head_size, cos_sin_cache, is_neox):
    """Turn in place as sgl_kernel's ``pos_enc.cu`` does: table, both products and their sum are of the dtype of q."""
    assert cos_sin_cache.dtype == query.dtype
    assert is_neox
    cos, sin = cos_sin_cache[positions][:, None].chunk(2, -1)
    for tensor in (query, key):
        first, second = (half.clone() for half in tensor.chunk(2, -1))
        tensor.copy_(torch.cat([first * cos - second * sin, second * cos + first * sin], -1))


class Attention:
    """The plan/run wrappers: page lists, ``NHD`` caches ``[pages, page_size, kv_heads, head_dim]``."""

    def __init__(self, workspace, kv_layout, use_tensor_cores=False):
        assert workspace.dtype == torch.uint8
        assert kv_layout == "NHD"

    def attend(self, q, caches, query_starts, indptr, indices, last_page, scale):
        assert all(t.dtype == torch.int32 for t in (query_starts, indptr, indices, last_page))
        out = torch.empty_like(q)
        for row in range(len(last_page)):
            new = slice(int(query_starts[row]), int(query_starts[row + 1]))
            pages = indices[int(indptr[row]) : int(indptr[row + 1])].long()
            length = (len(pages) - 1) * caches[0].shape[1] + int(last_page[row])
            keys, values = (c[pages].flatten(0, 1)[:length].float() for c in caches)  # [length, kv_heads, head_dim]
            group = q.shape[1] // keys.shape[1]
            keys, values = (t.repeat_interleave(group, 1) for t in (keys, values))
            scores = torch.einsum("qhd,khd->hqk", q[new].float(), keys) * scale
            count = scores.shape[1]
            hidden = torch.ones(count, length, dtype=torch.bool).triu(length - count + 1)
            out[new] = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values)
        return out


class Decode(Attention):
    def plan(
        self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, *,
        q_data_type, kv_data_type, sm_scale,
    ):  # fmt: skip
        self.lists, self.scale, self.form = (indptr, indices, last_page_len), sm_scale, (num_qo_heads, head_dim)

    def run(self, q, paged_kv_cache):
        assert q.shape == (len(self.lists[2]), *self.form)
        return self.attend(q, paged_kv_cache, torch.arange(len(q) + 1, dtype=torch.int32), *self.lists, self.scale)


class Prefill(Attention):
    def plan(
        self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads, num_kv_heads,
        head_dim_qk, page_size, *, causal, q_data_type, kv_data_type, sm_scale,
    ):  # fmt: skip
        assert causal
        self.lists = (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len)
        self.scale = sm_scale

    def run(self, q, paged_kv_cache):
        return self.attend(q, paged_kv_cache, *self.lists, self.scale)


def _softmax(logits, temperature=None):
    assert logits.dim() == 2
    return logits.float().softmax(-1)


def _sample(probs, top_k, top_p, filter_apply_order):
    assert filter_apply_order == "joint"
    assert (top_k > 0).all()
    return probs.argmax(-1).to(torch.int32)


def flashinfer():
    return {
        "flashinfer": module(
            "flashinfer",
            fused_add_rmsnorm=add_rmsnorm,
            silu_and_mul=gated(F.silu),
            gelu_and_mul=gated(F.gelu),
            gelu_tanh_and_mul=gated(lambda g: F.gelu(g, approximate="tanh")),
            apply_rope_with_cos_sin_cache=rotated,
            sampling=SimpleNamespace(softmax=_softmax, top_k_top_p_sampling_from_probs=_sample),
            BatchDecodeWithPagedKVCacheWrapper=Decode,
            BatchPrefillWithPagedKVCacheWrapper=Prefill,
        )
    }


def _rotary_embedding(positions, query, key, head_size, cos_sin_cache, is_neox=True):
    assert positions.dtype == torch.int64
    assert cos_sin_cache.dtype == query.dtype
    assert key is None or query.shape[1] % key.shape[1] == 0
    for tensor in (query,) if key is None else (query, key):
        rows = tensor.flatten(1)
        tensor.copy_(rotated(positions, rows, rows, head_size, cos_sin_cache, is_neox)[0].view(tensor.shape))


def _int8_scaled_mm(mat_a, mat_b, scales_a, scales_b, out_dtype, bias=None):
    assert mat_b.stride(0) == 1
    assert scales_a.numel() == mat_a.shape[0]
    assert bias is None or bias.dtype == out_dtype
    return (mat_a.float() @ mat_b.float() * scales_a.view(-1, 1) * scales_b.view(1, -1) + bias.float()).to(out_dtype)


def sgl_kernel():
    utils = module("sgl_kernel.utils", is_arch_support_pdl=lambda: False)
    library = module(
        "sgl_kernel",
        silu_and_mul=gated(F.silu),
        gelu_and_mul=gated(F.gelu),
        gelu_tanh_and_mul=gated(lambda g: F.gelu(g, approximate="tanh")),
        rotary_embedding=_rotary_embedding,
        int8_scaled_mm=_int8_scaled_mm,
        utils=utils,
    )
    return {"sgl_kernel": library, "sgl_kernel.utils": utils}


def module(name, **contents):
    made = ModuleType(name)
    vars(made).update(contents)
    return made


def install(monkeypatch, modules):
    """Put stand-ins where ``import`` finds them."""
    for name, made in modules.items():
        monkeypatch.setitem(sys.modules, name, made)
