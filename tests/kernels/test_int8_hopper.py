"""The INT8 linear layer's kernel for many tokens on Hopper: where it is launched, with what, and that the bits stay."""

import os
import subprocess
import sys

import pytest
import torch

from gaugeblock.kernels import _int8_linear_hopper as host
from gaugeblock.kernels import _int8_linear_hopper_gluon as gluon
from gaugeblock.kernels import _int8_linear_tiles as tiles
from gaugeblock.kernels import int8_linear as op
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED

WIDE, SQUARE, SMALL = tiles._HOPPER, tiles._HOPPER_SQUARE, tiles._HOPPER_SMALL
compiled_only = pytest.mark.skipif(INTERPRETED, reason="the interpreter has no tensor memory accelerator")


def on_device(case):
    return [tensor.to(DEVICE) for tensor in case.inputs.values()]


@pytest.mark.parametrize(
    ("rows", "columns", "config"),
    [
        (4096, 4096, WIDE),
        (8192, 28672, WIDE),
        (1024, 4096, WIDE),  # 64 tiles in one wave, 256 square ones in two
        (1024, 14336, SQUARE),  # seven waves of square tiles, four of wide ones
        (512, 4096, SQUARE),
        (128, 14336, SQUARE),
        (256, 4096, SMALL),
        (65, 4096, SMALL),
        (128, 4096, SMALL),
        (64, 4096, None),  # weights are all that counts
        (128, 3968, None),  # 62 small tiles for 132 multiprocessors
        (1, 1 << 30, None),
    ],
)
def test_the_tile_whose_last_wave_is_full_is_chosen(rows, columns, config):
    assert tiles.hopper_for(rows, columns) == config


@pytest.fixture
def launched(monkeypatch):
    """Let every tensor fit, and return the configurations that are launched instead of launching them."""
    found = []
    monkeypatch.setattr(tiles, "hopper_fits", lambda x, weight, out: True)
    monkeypatch.setattr(tiles, "launch_hopper", lambda *arguments: found.append(arguments[-1]))
    return found


@pytest.mark.parametrize("promise", [False, True])
def test_only_many_tokens_or_a_wish_launch_it(promise, launched, monkeypatch):
    arguments = *on_device(op.make(4, 64, torch.bfloat16, 1)), torch.bfloat16
    op.int8_linear(*arguments, weights_at_rest=promise)
    assert launched == []
    op.int8_linear(*arguments, weights_at_rest=promise, config=SQUARE)
    assert launched == [SQUARE]
    monkeypatch.setattr(tiles, "hopper_for", lambda rows, columns: WIDE if (rows, columns) == (4, 72) else None)
    op.int8_linear(*arguments, weights_at_rest=promise)
    chosen = [SQUARE] if promise else [SQUARE, WIDE]  # of few tokens the weights at rest are read early
    assert launched == chosen
    op.int8_linear(*arguments, config=op.CONFIGS[-2] if INTERPRETED else tiles._MIDDLE)
    op.int8_linear(arguments[0][:0], arguments[1][:0], *arguments[2:], config=WIDE)  # no rows, no launch
    assert launched == chosen


def test_where_the_kernel_does_not_fit_another_takes_over():
    case = op.make(3, 40, torch.float32, 2)  # fp32 out; interpreted, nothing fits
    expected = op.int8_linear(*on_device(case), torch.float32)
    for config in (WIDE, SQUARE):
        assert torch.equal(op.int8_linear(*on_device(case), torch.float32, config=config), expected)


def test_layouts_of_the_tensor_memory_accelerator_fit(monkeypatch):
    asked = []
    monkeypatch.setattr(host, "runs_on_hopper", lambda module, device: asked.append((module, device)) or True)
    x, weight = torch.zeros(6, 64, dtype=torch.int8), torch.zeros(40, 64, dtype=torch.int8)
    out = torch.zeros(6, 40, dtype=torch.bfloat16)
    assert host.fits(x, weight, out)
    assert host.fits(x, weight, out.half())
    assert host.fits(x[::2, 16:48], weight[::3], out[:, 8:])
    assert host.fits(x[:, :63], weight[:, :63], out[:, :39])
    assert asked == [("gaugeblock.kernels._int8_linear_hopper_gluon", 0)] * 4
    assert not host.fits(x, weight, out.float())
    assert not host.fits(x[:, 1:], weight, out)
    assert not host.fits(x, weight[:, :63].contiguous(), out)
    assert not host.fits(x, weight, out[:, :39].contiguous())
    monkeypatch.setattr(host, "runs_on_hopper", lambda module, device: False)
    assert not host.fits(x, weight, out)


def test_a_configuration_runs_the_cases_that_fit(monkeypatch):
    monkeypatch.setattr(host, "runs_on_hopper", lambda module, device: True)
    cases = [op.make(5, 1008, dtype, 3, columns=columns) for dtype in op.DTYPES for columns in (72, 33, 264)]
    fitting = [(case.dtype, case.inputs["weight"].shape[0]) for case in cases if op.config_fits(case, WIDE)]
    assert sorted(fitting, key=str) == [
        (dtype, columns) for dtype in (torch.bfloat16, torch.float16) for columns in (264, 72)
    ]


def test_a_launch_has_at_most_one_program_a_multiprocessor_of_the_tensors_card(monkeypatch):
    launches, asked = [], []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: launches.append((grid, arguments, constants))

    monkeypatch.setattr(gluon, "_int8_linear_hopper_kernel", Kernel())
    monkeypatch.setattr(host, "_processors", lambda device: asked.append(device) or 4)
    for config, halves, programs in ((WIDE, (128, 128, 1, 2), (1, 2, 4)), (SQUARE, (64, 128, 2, 1), (1, 4, 4))):
        for (rows, columns), count in zip(((1, 8), (129, 256), (300, 600)), programs, strict=True):
            x, weight = torch.zeros(rows, 32, dtype=torch.int8), torch.zeros(columns, 32, dtype=torch.int8)
            out = torch.zeros(rows, columns, dtype=torch.float16)
            x_scale, w_scale = torch.ones(rows, 3)[:, 0], torch.ones(columns)
            host.launch_hopper(x, x_scale, weight, w_scale, out[0], out, config)
            grid, arguments, constants = launches[-1]
            assert grid == (count,)
            assert arguments[6:] == (x_scale.stride(0), rows, columns, 32)
            assert tuple(constants[name] for name in ("ROWS", "CHANNELS", "DOWN", "ACROSS")) == halves
            blocks = [list(descriptor.block_shape) for descriptor in arguments[:3]]
            assert blocks == [[halves[0], 128], [halves[1], 128], [halves[0], 32]]
    assert asked == [0] * 6


@pytest.mark.gpu
@compiled_only
@pytest.mark.parametrize("config", [WIDE, SQUARE, SMALL], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_bits_are_those_of_the_other_kernels(dtype, config):
    shapes = (1, 16, 8), (5, 1008, 264), (127, 144, 256), (129, 4096, 72), (300, 528, 1032), (777, 2064, 4120)
    for rows, depth, columns in shapes:
        case = op.make(rows, depth, dtype, 3, "saturated" if rows == 300 else "offset", columns=columns)
        assert op.config_fits(case, config)
        expected = op.int8_linear(*on_device(case), dtype, config=op.CONFIGS[0])
        out = torch.full_like(expected, float("nan"))
        op.int8_linear(*on_device(case), dtype, out=out, config=config)
        assert torch.equal(out, expected), (case.label, config)


@pytest.mark.gpu
@compiled_only
@pytest.mark.parametrize("config", [None, WIDE, SQUARE], ids=str)
def test_more_tiles_than_multiprocessors(config):
    case = op.workload(DEVICE, torch.bfloat16, rows=4097, depth=1040, columns=8200)
    arguments = *case.inputs.values(), torch.bfloat16
    expected = op.int8_linear(*arguments, config=tiles._MIDDLE)
    for _ in range(5):  # what one program has not finished with, another's ring must not meet
        out = torch.full_like(expected, float("nan"))
        assert torch.equal(op.int8_linear(*arguments, out=out, config=config), expected)


@pytest.mark.gpu
@compiled_only
@pytest.mark.parametrize("config", [WIDE, SQUARE, SMALL], ids=str)
def test_rows_of_larger_tensors_are_taken_as_they_lie(config):
    x, x_scale, weight, w_scale, bias = on_device(op.make(300, 2048, torch.float16, 4, columns=520))
    room = torch.full((300, 1040), float("nan"), dtype=torch.float16, device=DEVICE)
    scales = x_scale.expand(300, 3)[:, 1:2], torch.stack([x_scale, -x_scale], 1)[:, 0]
    for left, right in ((x[:, :1000], weight[:, :1000]), (x[::2, 1024:], weight[:, 16:1040])):
        for scale in scales:
            arguments = left, scale[: len(left)], right, w_scale, bias, torch.float16
            out = room[: len(left), 8:528]
            op.int8_linear(*arguments, out=out, config=config)
            assert torch.equal(out, op.int8_linear(*arguments, config=op.CONFIGS[0]))
            assert room[:, :8].isnan().all()
            assert room[:, 528:].isnan().all()
            room.fill_(float("nan"))


SCRIPT = """
import re, triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource
from gaugeblock.kernels import _int8_linear_hopper_gluon as g
kernel = g._int8_linear_hopper_kernel

def boxes(dtype, bits, rows, columns):
    return f"tensordesc<{dtype}[{rows}, {columns}],{gl.NVMMASharedLayout(columns * bits // 8, bits, 2)!r}>"

for dtype, rows, channels, down, stages in (("bf16", 128, 128, 1, 4), ("fp16", 64, 128, 2, 6)):
    constants = dict(ROWS=rows, CHANNELS=channels, DOWN=down, ACROSS=3 - down, STAGES=stages, GROUP=8)
    types = dict(x_source=boxes("i8", 8, rows, 128), w_source=boxes("i8", 8, channels, 128),
                 out_sink=boxes(dtype, 16, rows, 32), x_scale_ptr="*fp32", w_scale_ptr="*fp32", bias_ptr="*" + dtype)
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    numbers = {(names.index(n),): value for n, value in constants.items()}
    source = GluonASTSource(kernel, signature, numbers, {})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    ptx = compiled.asm["ptx"]
    products = re.findall(r"wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8", ptx)
    print(len(products) == 2 * 4 * rows // 64, "ld.local" not in ptx, compiled.metadata.shared <= 232448)
"""


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU every configuration is compiled and run by KER-016")
def test_it_compiles_to_the_products_of_a_step_within_registers_and_shared_memory(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["True True True"] * 2
