"""Paged decode attention: its oracle, its edges, what it refuses, and that it compiles for the GPU without spills."""

import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext

import pytest
import torch

from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.bounds import budget_used
from gaugeblock.kernels.decode_attention import (
    CONFIGS,
    CONTRACT,
    MAX_SPLITS,
    Config,
    bound,
    decode_attention,
    make,
    oracle,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHORT = Config(8192, 32, 4, 2)  # splits of 32 tokens


def run(case, **changes):
    inputs = {**case.inputs, **{name: value for name, value in changes.items() if name in case.inputs}}
    others = {name: value for name, value in changes.items() if name not in case.inputs}
    return decode_attention(**inputs, **case.params, **others)


def used(case, result):
    expected = oracle(case)
    return budget_used(result, expected["out"], bound(case, expected)["out"]).max().item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "large", "negative"])
def test_oracle_is_the_formula_in_fifty_digits(dtype, kind):
    case = make(2, 5, dtype, 1, kind, heads=(4, 2), head_dim=3, page_size=2)
    out = oracle(case)["out"]
    q, k, v, table, lens = (tensor.tolist() for tensor in case.inputs.values())
    with localcontext() as context:
        context.prec = 50
        for request, length in enumerate(lens):
            slots = [(table[request][j // 2], j % 2) for j in range(length)]
            for head in range(4):
                query = [Decimal(x) for x in q[request][head]]
                keys = [[Decimal(x) for x in k[page][slot][head // 2]] for page, slot in slots]
                scale = Decimal(case.params["scale"])
                weights = [(scale * sum(a * b for a, b in zip(query, key, strict=True))).exp() for key in keys]
                for column in range(3):
                    values = [Decimal(v[page][slot][head // 2][column]) for page, slot in slots]
                    right = sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)
                    assert abs(Decimal(out[request, head, column].item()) - right) < Decimal("1e-9")


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96])
@pytest.mark.parametrize("page_size", [1, 16, 64])
def test_lengths_around_pages_and_splits(length, page_size):
    case = make(2, 100, torch.bfloat16, 2, heads=(2, 1), page_size=page_size)
    case.inputs["seq_lens"][0] = length
    result = run(case, config=SHORT)
    assert used(case, result) <= 1
    if length == 0:
        assert result[0].eq(0).all()


def test_more_tokens_than_splits_of_the_usual_length():
    case = make(1, MAX_SPLITS * 32 + 100, torch.float32, 3, heads=(1, 1), head_dim=16)
    assert used(case, run(case, config=SHORT)) <= 1


def test_splits_of_a_context_do_not_depend_on_the_width_of_the_table():
    case = make(3, 100, torch.float32, 4, heads=(2, 1))
    table = case.inputs["block_table"]
    wide = torch.cat([table, table[:, -1:].expand(-1, 50)], dim=1)
    assert run(case, config=SHORT).equal(run(case, config=SHORT, block_table=wide))


def test_every_head_dimension_up_to_the_padding():
    for head_dim in (1, 16, 96, 256):
        case = make(1, 20, torch.float16, 5, heads=(2, 1), head_dim=head_dim)
        assert used(case, run(case)) <= 1


def test_a_cache_with_other_strides_for_values_and_a_group_of_twenty():
    case = make(2, 40, torch.bfloat16, 6, heads=(20, 1))
    wide = torch.full((*case.inputs["v_cache"].shape[:2], 3, 64), math.nan, dtype=torch.bfloat16)
    wide[:, :, 1:2] = case.inputs["v_cache"]
    assert used(case, run(case, v_cache=wide[:, :, 1:2])) <= 1


def test_a_batch_of_none_and_a_table_without_columns():
    case = make(2, 40, torch.float32, 7)
    none, table = case.inputs["q"][:0], case.inputs["block_table"]
    assert run(case, q=none, block_table=table[:0], seq_lens=case.inputs["seq_lens"][:0]).shape == none.shape
    assert run(case, block_table=table[:, :0], seq_lens=torch.zeros(2, dtype=torch.int32)).eq(0).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda i: {"q": i["q"][0]}, "q has shape"),
        (lambda i: {"q": i["q"][:, :3]}, "no multiple"),
        (lambda i: {"k_cache": i["k_cache"][..., :-1]}, "k_cache has shape"),
        (lambda i: {"v_cache": i["v_cache"][:, :, :1]}, "v_cache has shape"),
        (lambda i: {"v_cache": i["v_cache"].half()}, "v_cache is torch.float16"),
        (lambda i: {"k_cache": i["k_cache"].mT.contiguous().mT}, "k_cache has strides"),
        (lambda i: {"block_table": i["block_table"][:1]}, "block_table has shape"),
        (lambda i: {"block_table": i["block_table"].long()}, "block_table is torch.int64"),
        (lambda i: {"seq_lens": i["seq_lens"][:1]}, "seq_lens has shape"),
        (lambda i: {"seq_lens": i["seq_lens"].float()}, "seq_lens is torch.float32"),
        (lambda i: {"out": i["q"][:1]}, "out has shape"),
        (lambda i: {"out": i["q"].mT.contiguous().mT}, "out has strides"),
    ],
)
def test_refuses(change, named):
    case = make(2, 40, torch.float32, 8)
    with pytest.raises(Refused, match=named):
        run(case, **change(case.inputs))


def test_made_cases_leave_nan_wherever_nothing_may_be_read():
    case = make(3, 50, torch.float16, 9, page_size=16)
    k, table, lens = (case.inputs[name] for name in ("k_cache", "block_table", "seq_lens"))
    nan = k.isnan().all(-1).all(-1)  # [pages, page_size]
    assert int((~nan).sum()) == int(lens.sum())
    for request, length in enumerate(lens.tolist()):
        spare = table[request, -(-length // 16) :].long()
        assert len(spare) >= 2
        assert nan[spare].all()


def test_cost_counts_the_contexts_not_the_cache():
    case = make(3, 50, torch.float16, 10, heads=(8, 2), page_size=16)
    tokens = int(case.inputs["seq_lens"].sum())
    kv = 2 * tokens * 2 * 64 * 2
    assert kv < CONTRACT.bytes_moved(case) < kv + 2 * 3 * 8 * 64 * 2 + 4 * (tokens + 6)
    assert CONTRACT.flops(case) == tokens * 8 * (4 * 64 + 5)


SCRIPT = """
import re, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels.decode_attention import CONFIGS, MAX_SPLITS, _merge_kernel, _split_kernel

def built(kernel, constants, dtype, warps, stages):
    kinds = {"sums_ptr": "*fp32", "stats_ptr": "*fp32", "table_ptr": "*i32", "lens_ptr": "*i32", "scale": "fp32"}
    names = kernel.arg_names
    usual = {n: "*" + dtype if n.endswith("_ptr") else "i32" for n in names}
    signature = {**usual, **kinds, **dict.fromkeys(constants, "constexpr")}
    signature = {n: signature[n] for n in names}
    aligned = [i for i, n in enumerate(names) if n.endswith("_ptr") or re.match("(q|k|v|out|table)_", n)]
    source = ASTSource(kernel, signature, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": stages})

for config in CONFIGS:
    shared = {"DIM": 128, "COLS": 128, "SPLIT": config.split, "MAX_SPLITS": MAX_SPLITS}
    one = {"GROUP": 4, "ROWS": 16, "PAGE": 16, "ALIKE": True, "TILE": config.tile(256), **shared}
    split = built(_split_kernel, one, "bf16", config.warps, config.stages)
    built(_merge_kernel, {"HEADS": 1, "STEP": 4, **shared}, "bf16", 1, 3)
    ptx = split.asm["ptx"]
    copies = set(re.findall(r"cp\\.async\\.c[ag]\\.shared\\.global \\[[^]]*\\], \\[[^]]*\\], (0x\\w+|\\d+)", ptx))
    print(split.metadata.shared <= 232448, "mma.sync" in ptx, ".local" in ptx, sorted(copies))
"""


def test_every_configuration_compiles_and_copies_sixteen_bytes_at_a_time(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    built = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert built.returncode == 0, built.stderr
    assert built.stdout.splitlines() == ["True True False ['0x10']"] * len(CONFIGS)
