"""GELU-and-mul: its oracle in fifty digits, the distance of its two forms, and what it refuses."""

import math
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
