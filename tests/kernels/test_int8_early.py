"""The INT8 linear layer with weights at rest: when it reads them early, that the bits stay, and what it compiles to."""

import os
import subprocess
import sys

import pytest
import torch

from gaugeblock.kernels import _int8_linear_tiles as tiles
from gaugeblock.kernels import int8_linear as op
from gaugeblock.kernels._int8_linear_early import EarlyConfig
from gaugeblock.kernels.add_rmsnorm import add_rmsnorm
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED

EARLY = (EarlyConfig(64, 8), EarlyConfig(32, 4))
compiled_only = pytest.mark.skipif(INTERPRETED, reason="the interpreter has no launches that overlap")


def on_device(case):
    return [tensor.to(DEVICE) for tensor in case.inputs.values()]


def promised(monkeypatch, **changes):
    """Return the promise that reaches the launch of a call whose arguments are ``changes`` of a plain case's."""
    seen = []
    monkeypatch.setattr(op, "launch", lambda *arguments: seen.append(arguments[-1]))
    case = op.make(4, 64, torch.bfloat16, 1, columns=64)
    given = dict(zip(case.inputs, on_device(case), strict=True)) | changes
    op.int8_linear(*given.values(), torch.bfloat16, weights_at_rest=True)
    return seen


def test_the_promise_reaches_the_launch_and_is_never_assumed(monkeypatch):
    assert promised(monkeypatch) == [True]
    seen = []
    monkeypatch.setattr(op, "launch", lambda *arguments: seen.append(arguments[-1]))
    op.int8_linear(*on_device(op.make(4, 64, torch.bfloat16, 1)), torch.bfloat16)
    assert seen == [False]


@pytest.mark.parametrize("name", ["weight", "w_scale", "bias"])
def test_a_copy_of_the_weights_that_the_call_itself_makes_is_not_at_rest(name, monkeypatch):
    shape = {"weight": (64, 64), "w_scale": (64,), "bias": (64,)}[name]
    dtype = {"weight": torch.int8, "w_scale": torch.float32, "bias": torch.bfloat16}[name]
    strided = torch.ones((*shape[:-1], 2 * shape[-1]), dtype=dtype, device=DEVICE)[..., ::2]
    assert promised(monkeypatch, **{name: strided}) == [False]


def test_few_tokens_and_not_too_many_channels_choose_it():
    for rows in (1, 2, 16):
        assert tiles.early_for(rows, 4096) == EARLY[0]
        assert tiles.early_for(rows, 1024) == EARLY[1]
    assert tiles.early_for(17, 4096) is None
    assert tiles.early_for(16, 8192) is None


@pytest.mark.parametrize("promise", [False, True])
def test_only_the_promise_or_a_wish_launches_it(promise, monkeypatch):
    launched = []
    monkeypatch.setattr(tiles, "fits", lambda x, weight: True)
    monkeypatch.setattr(tiles, "launch_early", lambda *arguments: launched.append(arguments[-2:]))
    arguments = *on_device(op.make(4, 64, torch.bfloat16, 1)), torch.bfloat16
    op.int8_linear(*arguments, weights_at_rest=promise)
    assert launched == ([(EARLY[1], True)] if promise else [])
    op.int8_linear(*arguments, weights_at_rest=promise, config=EARLY[0])
    assert launched[-1] == (EARLY[0], promise)


def test_where_the_kernel_does_not_fit_another_takes_over(monkeypatch):
    case = op.make(3, 40, torch.float32, 2)  # 40 is no multiple of 16; interpreted, nothing fits
    expected = op.int8_linear(*on_device(case), torch.float32)
    for config in EARLY:
        result = op.int8_linear(*on_device(case), torch.float32, config=config, weights_at_rest=True)
        assert torch.equal(result, expected)


@pytest.mark.gpu
@compiled_only
@pytest.mark.parametrize("config", EARLY, ids=str)
@pytest.mark.parametrize(("depth", "dtype"), [*zip((16, 1008, 4096), op.CONTRACT.dtypes, strict=True)], ids=str)
def test_the_bits_are_those_of_the_other_kernels(depth, dtype, config):
    for rows, columns in ((1, 9), (8, 264), (16, 4096), (21, 67)):  # the last in two programs of 16 rows
        case = op.make(rows, depth, dtype, 3, "saturated" if rows == 8 else "offset", columns=columns)
        expected = op.int8_linear(*on_device(case), dtype, config=op.CONFIGS[0])
        for at_rest in (False, True):
            out = torch.full_like(expected, float("nan"))
            op.int8_linear(*on_device(case), dtype, out=out, config=config, weights_at_rest=at_rest)
            assert torch.equal(out, expected), (case.label, config, at_rest)


@pytest.mark.gpu
@compiled_only
def test_rows_of_larger_tensors_are_taken_as_they_lie():
    x, x_scale, weight, w_scale, bias = on_device(op.make(12, 2048, torch.bfloat16, 4, columns=300))
    for left, right in ((x[:, :1024], weight[:, :1024]), (x[::2, 1024:], weight[:, 16:1040])):
        arguments = left, x_scale[: len(left)], right, w_scale, bias, torch.bfloat16
        expected = op.int8_linear(*arguments, config=op.CONFIGS[0])
        for config in EARLY:
            assert torch.equal(op.int8_linear(*arguments, config=config, weights_at_rest=True), expected)


@pytest.mark.gpu
@compiled_only
@pytest.mark.parametrize("rows", [1, 4, 16])
def test_without_the_promise_weights_that_the_kernel_before_writes_are_waited_for(rows):
    """Add+RMSNorm starts its successor at once, reads long rows, and at last writes what that reads as weights."""
    case = op.workload(DEVICE, torch.bfloat16, rows=rows, depth=4096, columns=256)
    x, x_scale, weight, w_scale, bias = case.inputs.values()
    written = weight.view(8, 131072).view(torch.bfloat16)
    hidden, residual = (torch.randn(2, *written.shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    gain = torch.ones_like(hidden[0, 0])
    out = torch.empty(rows, 256, device=DEVICE, dtype=torch.bfloat16)

    def chain(config, turns):
        results = []
        for turn in turns:
            add_rmsnorm(hidden[turn % 2], residual[0], gain, out=written, residual_out=residual[1])
            op.int8_linear(x, x_scale, weight, w_scale, bias, out=out, config=config)
            results.append(out.clone())
        return results

    for config in (None, *EARLY):
        expected = [chain(config, [turn])[0].cpu() for turn in range(2)]  # also compiles what is captured
        assert not torch.equal(*expected)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = chain(config, range(8))
        graph.replay()
        for turn, result in enumerate(results):
            assert torch.equal(result.cpu(), expected[turn % 2]), (config, turn)


SCRIPT = """
import re, triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource
from gaugeblock.kernels import _int8_linear_gluon as g
kernel = g._int8_early_kernel
for channels, flying in ((64, 8), (32, 4)):
    for rows in (8, 16):
        for early in (False, True):
            constants = dict(ROWS=rows, CHANNELS=channels, STEPS=8, HELD=7, FLYING=flying, EARLY=early)
            types = dict(x="*i8", w="*i8", out="*bf16", x_scale_ptr="*fp32", w_scale_ptr="*fp32", bias_ptr="*bf16")
            names = kernel.arg_names
            signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
            aligned = [i for i, n in enumerate(names) if n in types or n in ("x_stride", "w_stride", "depth")]
            numbers = {(names.index(n),): value for n, value in constants.items()}
            source = GluonASTSource(kernel, signature, numbers, {(i,): [["tt.divisibility", 16]] for i in aligned})
            options = {"num_warps": 8, "launch_pdl": True}
            compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
            ptx = compiled.asm["ptx"]
            wait = ptx.index("griddepcontrol.wait")
            copies = [found.start() for found in re.finditer(r"cp.async.cg.shared.global[^;]*0x10", ptx)]
            products = ptx.count("mma.sync.aligned.m16n8k32")
            print(len(copies) == 7 * channels // 8, (max(copies) < wait) == early, "ld.local" not in ptx,
                  products == 2 * channels * rows // 16, compiled.metadata.shared <= 232448)
"""


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU every configuration is compiled and run by KER-016")
def test_weights_are_asked_for_before_the_wait_only_when_they_are_at_rest(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["True True True True True"] * 8
