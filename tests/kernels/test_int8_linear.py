"""The INT8 linear layer: its oracle in exact arithmetic, its longest sums, what it refuses, and what it compiles to."""

import os
import subprocess
import sys
from fractions import Fraction

import pytest
import torch

from gaugeblock.conformance.kernels.judging import SEVERAL
from gaugeblock.kernels import _int8_linear_tiles
from gaugeblock.kernels import int8_linear as op
from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.bounds import budget_used
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED

KINDS = op.CONTRACT.kinds
TILE = op.CONFIGS[0] if not INTERPRETED else op.config_for(16, 1, 1)
GEMVS = [config for config in op.CONFIGS if isinstance(config, op.GemvConfig)]
TILES = [config for config in op.CONFIGS if isinstance(config, op.Config) and config.stages > 1]  # not interpreted


def on_device(case):
    return [tensor.to(DEVICE) for tensor in case.inputs.values()]


def test_values_are_judged_on_the_kernel_for_batches_also_on_a_gpu(monkeypatch):
    monkeypatch.setattr(_int8_linear_tiles, "INTERPRETED", False)
    assert isinstance(op.config_for(1, 72, 1008), op.GemvConfig)
    assert isinstance(op.config_for(SEVERAL, 72, 1008), op.Config)


@pytest.mark.parametrize("kind", KINDS)
def test_oracle_is_the_formula_in_fractions(kind):
    case = op.make(3, 17, torch.float16, 5, kind, columns=4)
    out = op.oracle(case)["out"]
    x, x_scale, weight, w_scale, bias = (t.tolist() for t in case.inputs.values())
    for i in range(3):
        for j in range(4):
            total = sum(a * b for a, b in zip(x[i], weight[j], strict=True))
            right = total * Fraction(x_scale[i][0]) * Fraction(w_scale[j]) + Fraction(bias[j])
            assert abs(Fraction(out[i, j].item()) - right) <= Fraction(2) ** -50 * (abs(right) + 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", op.CONTRACT.dtypes, ids=str)
def test_eager_is_within_the_bound(kind, dtype):
    for depth in (1, 8, 1000):
        case = op.make(3, depth, dtype, 6, kind, columns=9)
        oracle = op.oracle(case)
        used = budget_used(op.eager(*case.inputs.values(), dtype), oracle["out"], op.bound(case, oracle)["out"])
        assert used.max() <= 1, (case.label, used.max())


def test_eager_is_exact_on_a_processor_without_vnni():
    """oneDNN can be told to use no newer instructions than such a processor has: it adds pairs in 16 bits."""
    code = (
        "import torch; from gaugeblock.kernels.int8_linear import integer_product\n"
        "x = torch.full((4, 576), 127, dtype=torch.int8)\n"
        "print(integer_product(x, x).unique().tolist(), 576 * 127**2)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["[9290304]", "9290304"], done.stderr


def test_the_longest_sum_is_exact_and_a_longer_one_refused():
    x = torch.full((2, op.MAX_DEPTH), -128, dtype=torch.int8, device=DEVICE)
    x[1] = 127
    one, zero = torch.ones(1, device=DEVICE), torch.zeros(1, device=DEVICE)
    out = op.int8_linear(x, one.expand(2, 1), x[:1], one, zero, torch.float32)
    assert out.flatten().tolist() == [op.MAX_DEPTH * 2.0**14, -float(op.MAX_DEPTH * 127 * 128)]
    longer = torch.zeros((1, op.MAX_DEPTH + 1), dtype=torch.int8, device=DEVICE)
    with pytest.raises(Refused, match="131072, supported: 1…131071"):
        op.int8_linear(longer, one[None], longer, one, zero, torch.float32)


def test_sums_above_24_bits_are_rounded_to_nearest_even():
    depth = 1100
    x = torch.full((1, depth), 127, dtype=torch.int8, device=DEVICE)
    weight = torch.full((8, depth), 127, dtype=torch.int8, device=DEVICE)
    weight[:, 0] = torch.arange(8, dtype=torch.int8)
    one, zeros = torch.ones(8, device=DEVICE), torch.zeros(8, device=DEVICE)
    exact = [127 * (127 * (depth - 1) + i) for i in range(8)]
    assert min(exact) > 2**24
    out = op.int8_linear(x, one[:1, None], weight, one, zeros, torch.float32)
    assert out[0].tolist() == torch.tensor(exact, dtype=torch.float64).float().tolist()


def test_a_long_odd_row_is_within_the_bound():
    case = op.make(3, 4097, torch.float32, 4)
    oracle = op.oracle(case)
    result = op.int8_linear(*on_device(case), torch.float32).cpu()
    assert budget_used(result, oracle["out"], op.bound(case, oracle)["out"]).max() <= 1


def test_every_tile_gives_the_same_bits():
    case = op.make(21, 48, torch.bfloat16, 7, columns=1100)
    expected = op.int8_linear(*on_device(case), torch.bfloat16)
    for config in op.CONFIGS:
        if config in GEMVS:  # a thousand programs each, and compared below
            continue
        result = op.int8_linear(*on_device(case), torch.bfloat16, config=config)
        assert torch.equal(result, expected), config


@pytest.mark.parametrize("dtype", op.CONTRACT.dtypes, ids=str)
@pytest.mark.parametrize("depth", [1, 63, 1000, 1008, 4097, 8208])
def test_in_small_programs_the_bits_are_the_same(depth, dtype):
    for rows, columns in ((1, 9), (5, 67)):
        case = op.make(rows, depth, dtype, 11, "offset", columns=columns)
        expected = op.int8_linear(*on_device(case), dtype, config=TILE)
        for config in GEMVS:
            result = op.int8_linear(*on_device(case), dtype, config=config)
            assert torch.equal(result, expected), (case.label, config)


def test_small_programs_strides_and_the_longest_sum_are_taken():
    x, x_scale, weight, w_scale, bias = on_device(op.make(3, 1024, torch.float32, 12, columns=20))
    layouts = {
        "a depth that is no multiple of a word": (x[:, :1003], weight[:, :1003]),
        "rows that begin between words": (x[:, 3:1003], weight[:, 3:1003]),
        "activations alone between words": (x[:, 3:1003], weight[:, :1000]),
        "transposed": (x.t().contiguous().t(), weight.t().contiguous().t()),
        "every other channel": (x, torch.cat([weight, weight], 1).view(40, 1024)[::2]),
    }
    for name, (left, right) in layouts.items():
        arguments = left, x_scale.expand(3, 2)[:, 1:], right, w_scale, bias, torch.float32
        expected = op.int8_linear(*arguments, config=TILE)
        for config in GEMVS:
            assert torch.equal(op.int8_linear(*arguments, config=config), expected), (name, config)
    longest = torch.full((1, op.MAX_DEPTH), -128, dtype=torch.int8, device=DEVICE)
    one, zero = torch.ones(1, device=DEVICE), torch.zeros(1, device=DEVICE)
    for config in GEMVS:
        out = op.int8_linear(longest, one[None], longest, one, zero, torch.float32, config=config)
        assert out.item() == op.MAX_DEPTH * 2.0**14, config


def test_few_tokens_go_without_tensor_cores_and_more_with_them(monkeypatch):
    monkeypatch.setattr(_int8_linear_tiles, "INTERPRETED", False)
    assert isinstance(op.config_for(4, 4096, 4096), op.GemvConfig)
    for columns in (1, 4096, 14336, 128256):
        assert isinstance(op.config_for(1, columns, 4096), op.GemvConfig)
        for rows in (5, 16, 4096):
            assert isinstance(op.config_for(rows, columns, 4096), op.Config)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="so many tiles take the interpreter minutes")
@pytest.mark.parametrize("config", TILES, ids=str)
def test_more_tiles_than_multiprocessors(config):
    case = op.make(1300, 528, torch.bfloat16, 7, columns=8200)
    oracle = op.oracle(case)
    result = op.int8_linear(*on_device(case), torch.bfloat16, config=config).cpu()
    assert budget_used(result, oracle["out"], op.bound(case, oracle)["out"]).max() <= 1


def test_more_dimensions_and_empty_batches():
    x, x_scale, weight, w_scale, bias = on_device(op.make(6, 40, torch.float32, 8))
    flat = op.int8_linear(x, x_scale, weight, w_scale, bias, torch.float32)
    deep = op.int8_linear(x.view(2, 3, 40), x_scale.view(2, 3, 1), weight, w_scale, bias, torch.float32)
    assert torch.equal(deep.flatten(0, 1), flat)
    single = op.int8_linear(x[0], x_scale[0], weight, w_scale, bias, torch.float32)
    assert torch.equal(single, flat[0])
    assert op.int8_linear(x[:0], x_scale[:0], weight, w_scale, bias, torch.float32).shape == (0, 72)


def change(name, make):
    """Return a legal call's arguments with one changed."""
    case = op.make(4, 16, torch.float16, 9, columns=6)
    inputs = dict(zip(case.inputs, on_device(case), strict=True))
    inputs[name] = make(inputs[name])
    return inputs.values()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("x", lambda t: t.float(), r"x is torch.float32, its dtype must be torch.int8"),
        ("x", lambda t: t[:, :8], r"x has shape \(4, 8\), expected \(4, 16\)"),
        ("x", lambda t: t[0, 0], r"x has shape \(\)"),
        ("x", lambda t: t.to("meta"), "x_scale is on|x is on meta"),
        ("x_scale", lambda t: t.half(), r"x_scale is torch.float16, its dtype must be torch.float32"),
        ("x_scale", lambda t: t[:1], r"x_scale has shape \(1, 1\), expected \(4, 1\)"),
        ("x_scale", lambda t: t[:, 0], r"x_scale has shape \(4,\), expected \(4, 1\)"),
        ("weight", lambda t: t[0], r"weight \(16,\)"),
        ("weight", lambda t: t.to(torch.uint8), "weight is torch.uint8"),
        ("w_scale", lambda t: t[:1], r"w_scale has shape \(1,\), expected \(6,\)"),
        ("bias", lambda t: t.float(), "bias is torch.float32, its dtype must be torch.float16"),
    ],
)
def test_refusals_name_the_argument(name, make, message):
    with pytest.raises(Refused, match=message):
        op.int8_linear(*change(name, make), torch.float16)


def test_other_output_dtypes_and_layouts_are_refused():
    arguments = on_device(op.make(4, 16, torch.float16, 9, columns=6))
    with pytest.raises(Refused, match=r"out_dtype is torch.int32"):
        op.int8_linear(*arguments, torch.int32)
    out = torch.empty(6, 4, dtype=torch.float16, device=DEVICE).t()
    with pytest.raises(Refused, match="must be contiguous"):
        op.int8_linear(*arguments, torch.float16, out=out)


SCRIPT = """
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels import _int8_linear_tiles as tiles
kernel = tiles._int8_linear_kernel
for c in (c for c in tiles.CONFIGS if isinstance(c, tiles.Config)):
    constants = dict(BLOCK_M=c.block_m, BLOCK_N=c.block_n, BLOCK_K=c.block_k, GROUP=c.group, BULK=c.bulk,
                     BULK_OUT=c.bulk and c.bulk_out, PERSISTENT=c.persistent, SUBTILES=c.subtiles, AHEAD=c.ahead > 0)
    described = dict(x=c.bulk, w=c.bulk, out=c.bulk and c.bulk_out)
    blocks = dict(x=("i8", c.block_m, c.block_k), w=("i8", c.block_n, c.block_k),
                  out=("bf16", c.block_m, c.block_n // c.subtiles))
    types = {name: f"tensordesc<{t}[{m}, {k}]>" if described[name] else f"*{t}" for name, (t, m, k) in blocks.items()}
    types |= {"x_scale_ptr": "*fp32", "w_scale_ptr": "*fp32", "bias_ptr": "*bf16"}
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    aligned = [i for i, n in enumerate(names) if n.endswith(("_ptr", "_stride")) or n in ("x", "w", "out", "depth")]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned if not signature[names[i]].startswith("tensordesc")}
    source = ASTSource(kernel, signature, constants, attributes)
    options = {"num_warps": c.warps, "num_stages": c.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptx = compiled.asm["ptx"]
    print(c.block_m, c.bulk, max(compiled.metadata.shared, 0) <= 232448, sorted(set(re.findall(
        r"(?:wgmma.mma_async|mma).sync\\\\S*s8.s8\\\\S*|cp.async.(?:bulk.tensor|cg)|ld.local", ptx))))
"""


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU every configuration is compiled and run by KER-016")
def test_tiles_compile_to_integer_tensor_core_instructions(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.replace("\\\\", "\\")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == len(TILES)
    for line in lines:
        large = not line.startswith("16 ")
        bulk = line.split()[1] == "True"
        assert line.split()[2] == "True", f"more shared memory than there is: {line}"
        assert ("wgmma.mma_async" in line) == large, line
        assert "s32.s8.s8" in line, line
        assert ("cp.async.bulk.tensor" if bulk else "cp.async.cg") in line, line
        assert "ld.local" not in line, f"registers spilled: {line}"


GEMV_SCRIPT = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels import _int8_linear_gemv as gemv, _int8_linear_tiles as tiles
kernel = gemv._int8_gemv_kernel
for c in (c for c in tiles.CONFIGS if isinstance(c, gemv.GemvConfig)):
    constants = dict(ROWS=c.rows, CHANNELS=c.channels, BLOCK=c.block // 4, UNIT=4, WHOLE=c.block >= 4096,
                     STAGES=c.stages, OVERLAP=True, AHEAD=c.ahead > 0)
    types = dict(x="*i8", w="*i8", out="*bf16", x_scale_ptr="*fp32", w_scale_ptr="*fp32", bias_ptr="*bf16")
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    aligned = [i for i, n in enumerate(names) if n in types or n in ("x_stride", "w_stride", "depth", "columns")]
    source = ASTSource(kernel, signature, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    options = {"num_warps": c.warps, "num_stages": c.stages, "launch_pdl": True}
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    vectors = ptx.count("ld.global.v4.b32")
    channels = c.block * c.channels // (16 * 32 * c.warps)  # vectors of weights that a thread loads in a step
    wanted = channels + c.block * c.rows // (16 * 32 * c.warps)
    print(vectors >= wanted, 4 * channels * c.rows == ptx.count("dp4a.s32.s32"), "ld.local" not in ptx,
          ptx.count("griddepcontrol"), ("cp.async.bulk.prefetch.L2" in ptx) == (c.ahead > 0))
"""


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU every configuration is compiled and run by KER-016")
def test_few_tokens_compile_to_four_products_an_instruction_and_loads_of_16_bytes(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", GEMV_SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["True True True 2 True"] * (len(GEMVS) - 1)  # one is the interpreter's
