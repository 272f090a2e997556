"""Mutants of what runs on a GPU alone: here they can be planted and compiled, and there they are killed."""

import os
import subprocess
import sys

import pytest
import torch

from gaugeblock.fixtures.faults.record import load_faults, planted
from gaugeblock.fixtures.targets.kernels import op_of
from gaugeblock.kernels import _extend_attention_gluon as extend
from gaugeblock.kernels import _extend_attention_hopper as hopper
from gaugeblock.kernels import _int8_linear_gluon as int8
from gaugeblock.kernels import _int8_linear_hopper_gluon as int8_many
from gaugeblock.kernels import _ln_linear_tiles as tiles
from gaugeblock.kernels import ln_linear
from gaugeblock.kernels.runtime import DEVICE

FAULTS = {fault.id: fault for fault in load_faults().values() if fault.needs is not None}
LAUNCHES = ("kernels-extend-hopper-base-of-the-exponential", "kernels-extend-hopper-tile-by-batch")
KERNELS = {name: fault for name, fault in FAULTS.items() if fault.needs == "hopper" and name not in LAUNCHES}
OPS = {"extend": "extend_attention", "int8": "int8_linear", "lnl": "ln_linear"}


def keys():
    """Return under which keys Triton keeps the kernels' binaries."""
    kernels = extend._extend_attention_hopper_kernel, int8._int8_early_kernel, int8_many._int8_linear_hopper_kernel
    return [kernel.cache_key for kernel in kernels]


@pytest.mark.parametrize("name", FAULTS)
def test_its_place_is_in_the_source_once_and_it_belongs_to_its_op(name):
    assert op_of(name) == OPS[name.split("-")[1]]  # planted for a moment, which looks for the place


@pytest.mark.parametrize("name", KERNELS)
def test_a_mutant_is_not_served_the_binary_of_the_original(name):
    before = keys()
    with planted(name):
        assert sum(now != then for now, then in zip(keys(), before, strict=True)) == 1
    assert keys() == before


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_changed_launch_leaves_the_kernel(name):
    before, launch = keys(), hopper.launch
    with planted(name):
        assert hopper.launch is not launch
        assert keys() == before
    assert hopper.launch is launch


@pytest.mark.parametrize("name", [name for name in FAULTS if name.startswith("kernels-lnl-library-")])
def test_a_fault_of_the_library_call_changes_what_that_computes_and_nothing_else(name, monkeypatch):
    case = ln_linear.make(70, 64, torch.bfloat16, 1, activation="gelu_tanh").to(DEVICE)
    fits = [True]
    monkeypatch.setattr(tiles, "library_fits", lambda *arguments: fits[-1])

    def both():
        results = []
        for fits[-1] in (True, False):
            results.append(ln_linear.ln_linear(**case.inputs, **case.params))
        return results

    library, ours = both()
    with planted(name):
        faulty, still_ours = both()
    assert not torch.equal(faulty, library)
    assert torch.equal(still_ours, ours)


def test_each_of_the_paths_has_some():
    counts = {op: sum(name.startswith(f"kernels-{short}-") for name in FAULTS) for short, op in OPS.items()}
    assert counts["extend_attention"] >= 8
    assert counts["int8_linear"] >= 6
    assert sum(name.startswith("kernels-int8-hopper-") for name in FAULTS) >= 6
    assert counts["ln_linear"] >= 2


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource
from gaugeblock.fixtures.faults.record import planted
from gaugeblock.kernels import _extend_attention_gluon as extend, _int8_linear_gluon as int8
from gaugeblock.kernels import _int8_linear_hopper_gluon as int8_many

def boxes(dtype, bits, rows, columns):
    return f"tensordesc<{dtype}[{rows}, {columns}],{gl.NVMMASharedLayout(columns * bits // 8, bits, 2)!r}>"

BOXES = boxes("bf16", 16, 64, 64)
Q, SCALE, INT = "*bf16", "*fp32", "*i32"
KINDS = dict(q_ptr=Q, out_ptr=Q, k_source=BOXES, v_source=BOXES, table_ptr=INT, lens_ptr=INT, starts_ptr=INT)
KINDS |= dict(scale_log2="fp32", x="*i8", w="*i8", out=Q, x_scale_ptr=SCALE, w_scale_ptr=SCALE, bias_ptr=Q)
KINDS |= dict(x_source=boxes("i8", 8, 128, 128), w_source=boxes("i8", 8, 128, 128), out_sink=boxes("bf16", 16, 128, 32))
ALIGNED = ("q_ptr", "out_ptr", "q_token", "q_head", "k_head", "v_head", "out_token", "out_head")
ALIGNED += ("x", "w", "out", "x_scale_ptr", "w_scale_ptr", "bias_ptr", "x_stride", "w_stride", "depth")
TILES = dict(GROUP=1, HEADS=1, HEAD_DIM=64, PAGE=64, KEYS=128, STAGES=2, BOX=64)
HALVES = dict(ROWS=128, CHANNELS=128, DOWN=1, ACROSS=2, STAGES=4, GROUP=8)
STEPS = dict(ROWS=8, CHANNELS=64, STEPS=2, HELD=2, FLYING=2, EARLY=False)

def code(kernel, constants, options):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else KINDS.get(n, "i32") for n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n in ALIGNED}
    numbers = {(names.index(n),): value for n, value in constants.items()}
    source = GluonASTSource(kernel, signature, numbers, aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)

for fault in sys.argv[1:]:
    with planted(fault):
        if "-int8-hopper-" in fault:
            made = code(int8_many._int8_linear_hopper_kernel, HALVES, {"num_warps": 4})
        elif "-int8-" in fault:
            made = code(int8._int8_early_kernel, STEPS, {"num_warps": 8, "launch_pdl": True})
        else:
            made = code(extend._extend_attention_hopper_kernel, TILES, {"num_warps": 4})
    print(fault, made.metadata.shared <= 232448)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_mutant_compiles_for_hopper(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, *KERNELS]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{name} True" for name in KERNELS]
