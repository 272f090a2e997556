"""Extend attention beyond the generic checks: the oracle by brute force, chunks, edges, refusals, and the compiler."""

import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.bounds import budget_used
from gaugeblock.kernels.extend_attention import (
    CONTRACT,
    FEWEST_STEPS,
    bound,
    extend_attention,
    make,
    oracle,
    visible_keys,
)
from gaugeblock.kernels.runtime import INTERPRETED

DTYPES = CONTRACT.dtypes


def used(case):
    """Return the largest share of the budget that a call uses."""
    expected = oracle(case)
    result = extend_attention(**case.inputs, **case.params)
    return budget_used(result, expected["out"], bound(case, expected)["out"]).max().item()


def with_lengths(case, new, kv):
    """Return a case of the same requests with the last ``new`` of ``kv`` tokens each, cut from its queries."""
    inputs = dict(case.inputs)
    starts = torch.tensor([0, *new]).cumsum(0).to(torch.int32)
    inputs["q"] = case.inputs["q"][: int(starts[-1])]
    inputs["q_starts"] = starts
    inputs["seq_lens"] = torch.tensor(kv, dtype=torch.int32)
    return type(case)(f"{case.label} {new} of {kv}", case.dtype, inputs, case.params)


@pytest.mark.parametrize("variant", CONTRACT.variants, ids=str)
def test_the_oracle_is_the_formula_in_fifty_digits(variant):
    case = make(5, 9, torch.float16, 31, "peaked", **variant)
    out = oracle(case)["out"]
    q, k_cache, v_cache, table, lens, starts = case.inputs.values()
    page, group = k_cache.shape[1], q.shape[1] // k_cache.shape[2]
    scale = Decimal(case.params["scale"])
    with localcontext() as context:
        context.prec = 50
        for request in range(5):
            new = int(starts[request + 1] - starts[request])
            for i in range(0, new, 3):
                token, head = int(starts[request]) + i, (request + i) % q.shape[1]
                logits, values = [], []
                for j in range(int(lens[request]) - new + i + 1):
                    at = (int(table[request, j // page]), j % page, head // group)
                    pairs = zip(q[token, head].tolist(), k_cache[at].tolist(), strict=True)
                    logits.append(scale * sum(Decimal(a) * Decimal(b) for a, b in pairs))
                    values.append(Decimal(v_cache[at][5].item()))
                weights = [(x - max(logits)).exp() for x in logits]
                right = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
                size = sum(w * abs(v) for w, v in zip(weights, values, strict=True)) / sum(weights)
                assert abs(Decimal(out[token, head, 5].item()) - right) <= Decimal("1e-13") * size


def rows_keep_their_bits():
    """Whether a matrix product gives a row the same bits wherever it stands.

    Interpreted, a kernel's products are numpy's. OpenBLAS takes another kernel for each kind of CPU, and those for
    Haswell and Zen sum the first rows of a tile in another order than the others.
    """
    rng = np.random.default_rng(0)
    shapes = ((64, 64, 256), (64, 256, 64))  # a tile's products with its keys and with its values
    pairs = [(rng.standard_normal(s[:2], np.float32), rng.standard_normal(s[1:], np.float32)) for s in shapes]
    return all(np.array_equal(np.roll(a, n, 0) @ b, np.roll(a @ b, n, 0)) for a, b in pairs for n in range(1, len(a)))


ROWS_MOVE = INTERPRETED and not rows_keep_their_bits()


@pytest.mark.skipif(ROWS_MOVE, reason="this CPU's BLAS gives a row other bits in another place")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_prompt_in_chunks_has_the_bits_of_the_prompt_at_once(dtype):
    case = make(1, 300, dtype, 32)
    inputs = dict(case.inputs)
    inputs["q"] = torch.randn(300, *inputs["q"].shape[1:], generator=torch.Generator().manual_seed(1)).to(dtype)
    inputs["q_starts"] = torch.tensor([0, 300], dtype=torch.int32)
    at_once = extend_attention(**inputs, **case.params)
    for begin, end in ((0, 1), (1, 66), (66, 259), (259, 300)):
        chunk = {
            **inputs,
            "q": inputs["q"][begin:end],
            "seq_lens": torch.tensor([end], dtype=torch.int32),
            "q_starts": torch.tensor([0, end - begin], dtype=torch.int32),
        }
        assert torch.equal(extend_attention(**chunk, **case.params), at_once[begin:end]), f"tokens {begin}…{end - 1}"


@pytest.mark.parametrize(
    ("new", "kv"),
    [
        ([1, 1, 1], [1, 16, 17]),  # decode steps: alone, at the end of a page, at the start of one
        ([0, 0, 5], [0, 9, 5]),  # nothing at all, an idle request, no prefix
        ([15, 0, 16], [16, 0, 48]),
        ([31, 33, 1], [63, 64, 65]),  # around a tile of tokens
        ([0, 0, 0], [3, 4, 5]),
    ],
)
def test_lengths_around_pages_and_tiles(new, kv):
    case = with_lengths(make(1, 70, torch.float32, 33), [0], [0])
    whole = make(1, 70, torch.float32, 33)
    table = whole.inputs["block_table"].repeat(3, 1)  # three requests that share their pages
    queries = torch.randn(sum(new), 4, 64, generator=torch.Generator().manual_seed(2))
    case = with_lengths(
        type(case)("edges", case.dtype, {**whole.inputs, "q": queries, "block_table": table}, case.params), new, kv
    )
    assert case.inputs["q"].shape[0] == sum(new)
    if sum(new):
        assert used(case) <= 1
    else:
        assert extend_attention(**case.inputs, **case.params).shape == (0, 4, 64)


def test_nan_and_infinity_in_later_requests_reach_nobody():
    case = make(5, 100, torch.float32, 34)
    before = extend_attention(**case.inputs, **case.params)
    first, later = CONTRACT.rows(case, 0, 2)[1], CONTRACT.rows(case, 2, 5)
    used_pages = later[0].inputs["block_table"][:, :2].flatten().long()
    for name, value in (("k_cache", math.inf), ("v_cache", math.nan)):
        case.inputs[name][used_pages] = value
    assert torch.equal(extend_attention(**case.inputs, **case.params)[first], before[first])


def test_more_requests_than_the_search_reads_at_once():
    case = make(300, 20, torch.float32, 35)
    assert used(case) <= 1


def test_visible_keys_are_counted_one_by_one():
    case = make(5, 90, torch.float32, 36)
    starts, lens = case.inputs["q_starts"].tolist(), case.inputs["seq_lens"].tolist()
    counted = 0
    for request in range(5):
        new = starts[request + 1] - starts[request]
        counted += sum(lens[request] - new + i + 1 for i in range(new))
    assert visible_keys(case) == counted
    assert CONTRACT.flops(case) == 4 * 4 * 64 * counted


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("q", lambda t: t[:, :3], "must divide"),
        ("q", lambda t: t[..., :48], "64 or 128"),
        ("v_cache", lambda t: t[:-1], "v_cache"),
        ("block_table", lambda t: t[:-1], "block_table"),
        ("block_table", lambda t: t.float(), "dtype"),
        ("seq_lens", lambda t: t[:, None], "seq_lens"),
        ("q_starts", lambda t: t[:-1], "q_starts"),
        ("k_cache", lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0), "contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(name, change, says):
    case = make(4, 40, torch.float32, 37)
    with pytest.raises(Refused, match=says):
        extend_attention(**{**case.inputs, name: change(case.inputs[name])}, **case.params)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(Refused, match="scale"):
        extend_attention(**make(1, 8, torch.float32, 38).inputs, scale=scale)


COMPILE = """
import re, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource
from gaugeblock.kernels import _extend_attention_gluon as g, _extend_attention_triton as t
from gaugeblock.kernels.extend_attention import CONFIGS

def compiled(source, kernel, kinds, constants, options):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in names}
    numbers = ("scale_log2", "requests", "table_row", *constants, *[n for n in names if n.endswith("_source")])
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n not in numbers}
    made = source(kernel, signature, constants, aligned)
    return triton.compile(made, target=GPUTarget("cuda", 90, 32), options=options)

def kinds(name):
    integers = {n: "*i32" for n in ("table_ptr", "lens_ptr", "starts_ptr")}
    return {"scale_log2": "fp32", **integers, **{n: "*" + name for n in ("q_ptr", "k_ptr", "v_ptr", "out_ptr")}}

shared = {"GROUP": 4, "HEADS": 4, "HEAD_DIM": 128, "PAGE": 16}
for config in CONFIGS:
    if not isinstance(config, t.Config):
        continue
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        rows, keys = config.tile(dtype)
        options = {"num_warps": config.warps, "num_stages": config.stages}
        constants = {**shared, "ROWS": rows, "KEYS": keys}
        code = compiled(ASTSource, t._extend_attention_kernel, kinds(name), constants, options)
        ptx = code.asm["ptx"]
        wide = bool(re.search(r"cp\\.async\\.cg\\.shared\\.global[^;]*0x10", ptx))
        print(name, code.metadata.shared <= 232448, "wgmma" in ptx, wide)
hopper = [config for config in CONFIGS if not isinstance(config, t.Config)][0]
constants = {**shared, "KEYS": 64, "STAGES": hopper.stages, "BOX": 16}
boxes = f"tensordesc<bf16[16, 64],{gl.NVMMASharedLayout(128, 16, 2)!r}>"
values = {**kinds("bf16"), "k_source": boxes, "v_source": boxes}
code = compiled(GluonASTSource, g._extend_attention_hopper_kernel, values, constants, {"num_warps": 4})
ptx = code.asm["ptx"]
print("hopper", "wgmma.mma_async" in ptx, "cp.async.bulk.tensor" in ptx, "setmaxnreg" in ptx)
"""


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU every configuration is compiled and run by KER-016")
def test_every_configuration_compiles_with_tensor_cores_and_wide_asynchronous_loads(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 2 * len(set(CONTRACT.configs) - {FEWEST_STEPS}) - 1  # that one is the interpreter's
    assert set(lines) == {"bf16 True True True", "fp32 True False True", "hopper True True True"}
