"""GELU-and-mul: its oracle in many digits, its two forms, what it refuses, and what it waits for."""

import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext

import pytest
import torch

from gaugeblock.kernels import gelu_and_mul as op
from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.runtime import DEVICE


def erf(x):
    """Return erf of a Decimal by its series, which converges everywhere."""
    term, total, n = x, x, 0
    while abs(term) > Decimal(10) ** -60:
        n += 1
        term *= -x * x / n
        total += term / (2 * n + 1)
    return total * 2 / Decimal("3.14159265358979323846264338327950288419716939937510582").sqrt()


def gelu(gate, approximate):
    """Return GELU of a Decimal."""
    if approximate == "none":
        return gate * (1 + erf(gate / Decimal(2).sqrt())) / 2
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582")
    z = (8 / pi).sqrt() * (gate + Decimal("0.044715") * gate**3)
    return gate / (1 + (-z).exp())


@pytest.mark.parametrize("approximate", op.FORMS)
@pytest.mark.parametrize("kind", ["normal", "small", "denormal"])
def test_oracle_is_the_formula_in_many_digits(approximate, kind):
    case = op.make(2, 9, torch.float32, 23, kind, approximate=approximate)
    out = op.oracle(case)["out"]
    gate, up = (half.flatten().tolist() for half in case.inputs["x"].double().chunk(2, dim=1))
    with localcontext() as context:
        context.prec = 100
        for result, g, u in zip(out.flatten().tolist(), gate, up, strict=True):
            right = gelu(Decimal(g), approximate) * Decimal(u)
            assert abs(Decimal(result) - right) <= Decimal("1e-13") * abs(right)


def test_the_forms_differ_by_less_than_a_thousandth_and_are_told_apart():
    gate = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    x = torch.cat([gate, torch.ones_like(gate)])[None].float()
    tanh, none = (op.gelu_and_mul(x.to(DEVICE), form).cpu()[0] for form in ("tanh", "none"))
    assert 4e-4 < (tanh - none).abs().max().item() < 5e-4


@pytest.mark.parametrize("form", op.FORMS)
def test_the_negative_tail_keeps_its_digits(form):
    gate = torch.linspace(-11 if form == "none" else -8, 0, 5000)[:-1]
    x = torch.cat([gate, torch.ones_like(gate)])[None]
    result = op.gelu_and_mul(x.to(DEVICE), form).cpu()[0].double()
    right = op.oracle(op.Case("", torch.float32, {"x": x}, {"approximate": form}))["out"][0]
    allowed = 1e-6 + 2.0**-24 * (1.5 * gate**2 if form == "none" else 9 * op._z(gate.double()).abs())
    assert ((result / right - 1).abs() < allowed).all()


@pytest.mark.parametrize("form", ["erf", "", None, True])
def test_another_form_is_refused_with_the_legal_ones(form):
    with pytest.raises(Refused, match=r"approximate is .* expected one of 'tanh', 'none'"):
        op.gelu_and_mul(torch.zeros(2, 8, device=DEVICE), form)


def test_shapes_are_those_of_halves():
    with pytest.raises(Refused, match="gate and up"):
        op.gelu_and_mul(torch.zeros(2, 7, device=DEVICE))
    assert op.gelu_and_mul(torch.zeros(3, 0, 2, 8, device=DEVICE)).shape == (3, 0, 2, 4)
    assert math.isnan(op.gelu_and_mul(torch.full((1, 2), math.nan, device=DEVICE)).item())


SCRIPT = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels import gelu_and_mul, silu_and_mul
for kernel in (silu_and_mul._silu_and_mul_kernel, gelu_and_mul._gelu_and_mul_kernel):
    names = kernel.arg_names
    constants = {n: v for n, v in {"ROWS": 1, "COLS": 2048, "OVERLAP": True, "TANH": False}.items() if n in names}
    signature = {n: "constexpr" if n in constants else "*bf16" if n.endswith("_ptr") else "i32" for n in names}
    options = {"num_warps": 8, "launch_pdl": True}
    compiled = triton.compile(ASTSource(kernel, signature, constants, {}), GPUTarget("cuda", 90, 32), options)
    ptx = compiled.asm["ptx"]
    print(0 < ptx.find("griddepcontrol.wait") < ptx.find("ld.global"))
"""


def test_a_kernel_launched_early_waits_before_it_reads(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["True", "True"]
