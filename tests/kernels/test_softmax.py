"""The softmax: its oracle in fifty digits, masked rows, very long rows, what it refuses, and what it compiles to."""

import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext

import pytest
import torch

from gaugeblock.kernels import softmax as op
from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.bounds import budget_used
from gaugeblock.kernels.runtime import DEVICE

DTYPES = op.CONTRACT.dtypes


def judged(case, config=None):
    """Run a case; return the result and the largest share of its bound that it uses."""
    result = op.softmax(case.inputs["x"].to(DEVICE), config=config).cpu()
    oracle = op.oracle(case)
    return result, budget_used(result, oracle["out"], op.bound(case, oracle)["out"]).max().item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", op.CONTRACT.kinds)
def test_oracle_is_the_formula_in_fifty_digits(dtype, kind):
    case = op.make(3, 7, dtype, 21, kind)
    out = op.oracle(case)["out"]
    for row, logits in enumerate(case.inputs["x"].tolist()):
        with localcontext() as context:
            context.prec = 50
            weights = [Decimal(logit).exp() if math.isfinite(logit) else Decimal(0) for logit in logits]
            total = sum(weights) or Decimal(1)
            for column, weight in enumerate(weights):
                right = weight / total
                assert abs(Decimal(out[row, column].item()) - right) <= Decimal("1e-13") * right + Decimal("1e-300")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", op.CONTRACT.kinds)
def test_rows_sum_to_one_within_their_bounds(dtype, kind):
    case = op.make(4, 3000, dtype, 3, kind)
    result, _ = judged(case)
    allowed = op.bound(case, op.oracle(case))["out"].sum(dim=-1)
    total = result.double().sum(dim=-1)
    expected = case.inputs["x"].isfinite().any(dim=-1).double()
    assert ((total - expected).abs() <= allowed).all(), (total, allowed)


def test_what_is_masked_is_zero_and_the_rest_as_if_it_were_alone():
    x = torch.tensor([[1.0, -math.inf, 2.0, -math.inf], [-math.inf] * 4, [-math.inf, -math.inf, -math.inf, -3e38]])
    result = op.softmax(x.to(DEVICE)).cpu()
    assert torch.equal(result[0, [0, 2]], op.softmax(x[:1, [0, 2]].to(DEVICE)).cpu()[0])
    assert result[0, [1, 3]].tolist() == [0.0, 0.0]
    assert result[1:].tolist() == [[0.0] * 4, [0.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize("columns", [5, 3000])
def test_a_row_with_plus_infinity_or_nan_is_nan_and_no_other(columns):
    x = torch.zeros(4, columns, device=DEVICE)
    x[1, 3], x[2, columns - 1] = math.inf, math.nan
    result = op.softmax(x)
    assert result[[1, 2]].isnan().all()
    assert (result[[0, 3]] == 1 / columns).all() or not result[[0, 3]].isnan().any()


@pytest.mark.parametrize("config", op.CONFIGS, ids=str)
@pytest.mark.parametrize("kind", ["rising", "masked", "all_masked"])
def test_every_configuration_streams_rows_longer_than_it_holds(config, kind):
    columns = config.held + 2 * config.tile + 1
    _, used = judged(op.make(3, columns, torch.float32, 5, kind), config)
    assert used <= 1, used


def test_a_vocabulary_of_two_hundred_thousand_is_within_the_bound():
    _, used = judged(op.make(2, 200_019, torch.bfloat16, 8, "masked"), op.CONFIGS[-1])
    assert used <= 1, used


def test_a_row_has_the_same_configuration_in_every_batch_and_a_longer_one_holds_no_less():
    for itemsize in (2, 4):
        held = [op.config_for(columns, itemsize).held for columns in (1, 64, 65, 1000, 1025, 32000, 128256, 10**6)]
        assert held == sorted(held)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: op.softmax(torch.tensor(1.0, device=DEVICE)), "x has no dimensions"),
        (lambda: op.softmax(torch.zeros(3, 0, device=DEVICE)), "last dimension of x is 0"),
        (lambda: op.softmax(torch.zeros(3, 4, device=DEVICE, dtype=torch.double)), "x is torch.float64"),
        (lambda: op.softmax(torch.zeros(3, 4, device=DEVICE), out=torch.zeros(3, 5, device=DEVICE)), "out has shape"),
        (lambda: op.softmax(torch.zeros(4, 4, device=DEVICE), out=torch.zeros(4, 4, device=DEVICE).t()), "contiguous"),
    ],
)
def test_refusals_name_the_argument(call, message):
    with pytest.raises(Refused, match=message):
        call()


SCRIPT = """
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels import softmax as op
for columns in (1000, 32000, 128256):
    config = op.config_for(columns, 2)
    constants = {"ROWS": config.rows, "HELD": config.held, "TILE": config.tile, "LANE": 8}
    constants["STREAMED"] = columns > config.held
    names = op._softmax_kernel.arg_names
    signature = {n: "constexpr" if n in constants else "*bf16" if n.endswith("_ptr") else "i32" for n in names}
    aligned = [i for i, n in enumerate(names) if n.endswith(("_ptr", "_stride")) or n == "columns"]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(op._softmax_kernel, signature, constants, attributes)
    options = {"num_warps": config.warps, "maxnreg": config.registers}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    accesses = re.findall(r"(?:ld|st)\\.global\\S*", compiled.asm["ptx"])
    print(all("v4.b32" in access for access in accesses), "convert_layout" in compiled.asm["ttgir"])
"""


def test_accesses_are_sixteen_bytes_wide_and_columns_stay_in_their_threads(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["True False"] * 3
