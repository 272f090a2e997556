"""The oracles against formulas written another way, in exact or much higher precision."""

from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from gaugeblock.kernels import add_rmsnorm, silu_and_mul
from gaugeblock.kernels.bounds import ulp
from gaugeblock.kernels.contract import load_contracts

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
RELATIVE = Decimal("1e-14")  # a few float64 roundings


def test_every_file_with_a_contract_is_found():
    folder = Path(add_rmsnorm.__file__).parent
    written = {path.stem for path in folder.glob("*.py") if "\nCONTRACT = " in path.read_text(encoding="utf-8")}
    assert set(load_contracts()) == written


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "small", "offset", "scaled"])
def test_rmsnorm_oracle_is_the_formula_in_fifty_digits(dtype, kind):
    case = add_rmsnorm.make(3, 7, dtype, 21, kind)
    oracle = add_rmsnorm.oracle(case)
    weight = [Decimal(w) for w in case.inputs["weight"].tolist()]
    with localcontext() as context:
        context.prec = 50
        for row in range(3):
            total = [Decimal(v) for v in oracle["residual"][row].tolist()]
            root = (sum(v * v for v in total) / 7 + Decimal(case.params["eps"])).sqrt()
            for column in range(7):
                right = total[column] * weight[column] / root
                assert abs(Decimal(oracle["y"][row, column].item()) - right) <= RELATIVE * abs(right)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_residual_is_the_exact_sum_rounded_to_nearest_even(dtype):
    case = add_rmsnorm.make(3, 40, dtype, 22, "normal")
    result = add_rmsnorm.oracle(case)["residual"]
    x, residual = (case.inputs[name].flatten().tolist() for name in ("x", "residual"))
    for got, a, b in zip(result.flatten().tolist(), x, residual, strict=True):
        exact = Fraction(a) + Fraction(b)
        unit = Fraction(ulp(torch.tensor(float(exact), dtype=torch.float64), dtype).item())
        assert Fraction(got) == round(exact / unit) * unit  # Python rounds ties to even too


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "large", "denormal"])
def test_silu_oracle_is_the_formula_in_fifty_digits(dtype, kind):
    case = silu_and_mul.make(2, 9, dtype, 23, kind)
    out = silu_and_mul.oracle(case)["out"]
    gate, up = case.inputs["x"].double().chunk(2, dim=1)
    with localcontext() as context:
        context.prec = 50
        for at in torch.cartesian_prod(torch.arange(2), torch.arange(9)).tolist():
            g, u = Decimal(gate[tuple(at)].item()), Decimal(up[tuple(at)].item())
            right = g * u / (1 + (-g).exp())
            assert abs(Decimal(out[tuple(at)].item()) - right) <= RELATIVE * abs(right)
