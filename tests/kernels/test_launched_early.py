"""What KER-023 sees of kernels that are launched early."""

import os
import subprocess
import sys

import pytest
import torch

from gaugeblock.conformance.kernels.launched_early import late_inputs, stale, watched
from gaugeblock.kernels import decode_attention, int8_linear, runtime
from gaugeblock.kernels.runtime import INTERPRETED, jit, overlaps, tl

interpreted_only = pytest.mark.skipif(not INTERPRETED, reason="the order of accesses is watched in the interpreter")


@jit
def _touches(x: tl.tensor, out: tl.tensor, count: tl.tensor, WAIT: tl.constexpr):  # noqa: N803 # as in kernels
    at = tl.arange(0, 4)
    before = tl.load(x + at, mask=at < count)
    if WAIT:
        tl.extra.cuda.gdc_wait()
    tl.store(out + at, before + tl.load(x + at))
    tl.atomic_add(out + at, 1, mask=at < count)


def seen(programs=1, **arguments):
    x, out = torch.arange(4), torch.zeros(4, dtype=torch.int64)
    with watched({"x": x, "out": out}) as found:
        assert overlaps()
        _touches[(programs,)](x, out, **arguments)
    return list(found.early)


@interpreted_only
def test_reads_and_writes_before_the_wait_are_named():
    assert seen(count=0, WAIT=True, launch_pdl=True) == []  # masked off, nothing is touched
    assert seen(count=1, WAIT=True, launch_pdl=True) == ["_touches reads x before it waits for the kernel before"]
    assert [line.split(" before")[0] for line in seen(count=1, WAIT=False, launch_pdl=True)] == [
        "_touches reads x",
        "_touches writes out",
    ]


@interpreted_only
def test_every_program_waits_for_itself_and_an_ordinary_launch_need_not():
    assert len(seen(3, count=0, WAIT=False, launch_pdl=True)) == 2
    assert seen(count=1, WAIT=False) == []


@interpreted_only
def test_afterwards_nothing_is_pretended():
    with pytest.raises(RuntimeError, match="stop"), watched({}):
        raise RuntimeError("stop")
    assert not runtime.pretended
    assert not overlaps()


def test_page_tables_and_lengths_are_never_stale():
    case = decode_attention.CONTRACT.make(3, 24, torch.float16, 1)
    assert {"q", "k_cache", "v_cache"} == set(late_inputs(case))
    assert len(late_inputs(int8_linear.make(3, 32, torch.float16, 1))) == 5


def test_a_single_scale_that_is_stale_is_another():
    case = int8_linear.make(1, 32, torch.float16, 1)
    for name in late_inputs(case):
        assert (stale(case.inputs[name]) != case.inputs[name]).any(), name


SCRIPT = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.conformance.kernels import launched_early
kernel = launched_early._late_copy_kernel
types = dict(source="*u8", target="*u8", count="i32", cycles="i32", SIZE="constexpr")
source = ASTSource(kernel, types, {(4,): launched_early.BLOCK}, {(i,): [["tt.divisibility", 16]] for i in (0, 1)})
ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["ptx"]
words = "griddepcontrol.launch_dependents", "griddepcontrol.wait", "%clock64", "st.global"
order = [ptx.index(word) for word in words]
print(order == sorted(order), ptx.count("%clock64"))
"""


@interpreted_only
def test_the_kernel_before_gives_the_sign_waits_and_writes_last(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["True", "2"]
