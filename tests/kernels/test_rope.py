"""Rotary embedding: its oracle against complex numbers, layouts, positions, what is refused, what it compiles to."""

import cmath
import math
import os
import subprocess
import sys

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from gaugeblock.kernels import rope as op
from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.bounds import budget_used
from gaugeblock.kernels.runtime import DEVICE


def on_device(case):
    return [tensor.to(DEVICE) for tensor in case.inputs.values()]


@pytest.mark.parametrize("variant", op.CONTRACT.variants, ids=str)
def test_oracle_turns_complex_numbers(variant):
    case = op.make(3, 14, torch.float64, 5, **variant)
    rotary_dim = case.inputs["cos_sin_cache"].shape[1]
    half = rotary_dim // 2
    for name, result in op.oracle(case).items():
        for token, position in enumerate(case.inputs["positions"].tolist()):
            for before, after in zip(case.inputs[name][token].tolist(), result[token].tolist(), strict=True):
                for i in range(half):
                    at = (2 * i, 2 * i + 1) if case.params["interleaved"] else (i, i + half)
                    turn = cmath.exp(1j * position * 10000 ** (-2 * i / rotary_dim))
                    right = complex(before[at[0]], before[at[1]]) * turn
                    assert abs(complex(after[at[0]], after[at[1]]) - right) < 1e-6 * abs(right)  # the table is fp32
                assert after[rotary_dim:] == before[rotary_dim:]


def test_neox_is_what_transformers_computes_for_llama():
    case = op.make(6, 32, torch.float32, 7)
    cos, sin = case.inputs["cos_sin_cache"][case.inputs["positions"]].repeat(1, 2).view(6, 2, 2, 16).unbind(2)
    both = [torch.cat([part[:, 0], part[:, 0]], dim=-1)[None] for part in (cos, sin)]  # [1, tokens, dim]
    q, k = (case.inputs[name].transpose(0, 1)[None] for name in ("q", "k"))
    expected = [x[0].transpose(0, 1) for x in apply_rotary_pos_emb(q, k, *both)]
    for name, right, ours in zip("qk", expected, op.rope(*on_device(case)), strict=True):
        torch.testing.assert_close(ours.cpu(), right, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", op.CONTRACT.dtypes, ids=str)
@pytest.mark.parametrize("heads", [(1, 1), (8, 1), (17, 3), (0, 2)])
def test_any_number_of_heads(dtype, heads, monkeypatch):
    monkeypatch.setattr(op, "HEADS", heads)
    case = op.make(3, 64, dtype, 2)
    oracle = op.oracle(case)
    bound = op.bound(case, oracle)
    for name, result in zip("qk", op.rope(*on_device(case)), strict=True):
        share = budget_used(result.cpu(), oracle[name], bound[name])
        assert share.numel() == 0 or share.max() <= 1, name


def test_int32_positions_and_a_fused_projection_in_place():
    case = op.make(5, 32, torch.float32, 3)
    q, k, positions, cache = on_device(case)
    expected = op.rope(q, k, positions, cache)
    fused = torch.cat([q.flatten(1), k.flatten(1), k.flatten(1)], dim=1)  # as a qkv projection leaves it
    q_view, k_view = fused[:, : 6 * 32].view(5, 6, 32), fused[:, 6 * 32 : 9 * 32].view(5, 3, 32)
    values = fused[:, 9 * 32 :].clone()
    results = op.rope(q_view, k_view, positions.int(), cache, q_out=q_view, k_out=k_view)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
    assert torch.equal(fused[:, 9 * 32 :], values)
    assert results[0].data_ptr() == fused.data_ptr()


def test_a_position_outside_of_the_table_is_nan_and_leaves_the_others():
    case = op.make(4, 16, torch.float32, 4, partial=True)
    q, k, positions, cache = on_device(case)
    expected = op.rope(q, k, positions, cache)
    for wrong in (-1, cache.shape[0], 2**40):
        moved = positions.clone()
        moved[1] = wrong
        for result, right, x in zip(op.rope(q, k, moved, cache), expected, (q, k), strict=True):
            assert result[1, :, :8].isnan().all()
            assert torch.equal(result[1, :, 8:], x[1, :, 8:])
            assert torch.equal(result[[0, 2, 3]], right[[0, 2, 3]])


def test_the_table_is_right_at_long_contexts():
    table = op.cos_sin_cache(131072, 64, 500000.0)
    for position in (1, 4097, 131071):
        for i in (0, 1, 31):
            angle = position * 500000.0 ** (-2 * i / 64)
            assert table[position, i].item() == pytest.approx(math.cos(angle), abs=2**-24)
            assert table[position, 32 + i].item() == pytest.approx(math.sin(angle), abs=2**-24)


def changed(**inputs):
    """Return a call with some inputs of a legal case replaced by functions of them."""
    tensors = dict(zip(("q", "k", "positions", "cos_sin_cache"), on_device(op.make(4, 16, torch.float32)), strict=True))
    return {name: inputs[name](tensor) if name in inputs else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (changed(k=lambda k: k[:3]), r"k has shape \(3, 3, 16\), expected \(4, 3, 16\)"),
        (changed(k=lambda k: k[..., :8]), "k has shape"),
        (changed(q=lambda q: q[0]), "q has shape .* expected 3 dimensions"),
        (changed(positions=lambda p: p[:1]), "positions has shape"),
        (changed(positions=lambda p: p.float()), "positions is torch.float32"),
        (changed(cos_sin_cache=lambda c: c.bfloat16()), "16 bits lose the angle"),
        (changed(cos_sin_cache=lambda c: c[:, :15]), "expected an even one in 2…16"),
        (changed(cos_sin_cache=lambda c: c.repeat(1, 2)), "expected an even one in 2…16"),
        (changed(q=lambda q: q.half()), "k is torch.float32 but q is torch.float16"),
        ({**changed(), "q_out": torch.zeros(4, 16, 6, device=DEVICE).transpose(1, 2)}, "last dimension must be cont"),
    ],
)
def test_refusals_name_the_argument(call, message):
    with pytest.raises(Refused, match=message):
        op.rope(**call)


SCRIPT = """
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels import rope as op
for interleaved in (False, True):
    config = op.config_for(8192)
    constants = {"dim": 128, "rotary_dim": 128, "HALF": 64, "REST": 0, "INTERLEAVED": interleaved}
    constants.update(TOKENS=config.tokens, HEADS=config.heads)
    names = op._rope_kernel.arg_names
    pointers = {"position_ptr": "*i64", "table_ptr": "*fp32"}
    kinds = {n: pointers.get(n, "*bf16") if n.endswith("_ptr") else "i32" for n in names}
    signature = {n: "constexpr" if n in constants else kinds[n] for n in names}
    aligned = [i for i, n in enumerate(names) if n.endswith(("_ptr", "_token", "_head", "_stride"))]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(op._rope_kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": config.warps})
    accesses = re.findall(r"(?:ld|st)\\.global\\S*", compiled.asm["ptx"])
    narrow = {access for access in accesses if not access.endswith("v4.b32")}
    print(narrow, "shared" in compiled.asm["ptx"])
"""


def test_accesses_are_sixteen_bytes_wide_without_a_detour(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    for line in run.stdout.splitlines():
        assert line == "{'ld.global.b64'} False"  # a position
