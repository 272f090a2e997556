"""The reference kernels as functions: what they refuse, what they do with odd inputs, how a module is found."""

import sys
import types

import pytest
import torch

from gaugeblock.fixtures.errors import KitError, TargetFault
from gaugeblock.fixtures.targets.kernels import load_kernels
from gaugeblock.kernels.add_rmsnorm import MAX_HIDDEN, add_rmsnorm
from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.contract import load_contracts
from gaugeblock.kernels.runtime import DEVICE
from gaugeblock.kernels.silu_and_mul import silu_and_mul


def rows(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add_rmsnorm(rows(4, 8), rows(4, 8), rows(8), 0.0), "eps is 0.0, must be positive"),
        (lambda: add_rmsnorm(rows(4, 8), rows(4, 8), rows(8), float("nan")), "eps is nan"),
        (lambda: add_rmsnorm(rows(4, 8), rows(4, 8), rows(1)), r"weight has shape \(1,\), expected \(8,\)"),
        (lambda: add_rmsnorm(rows(4, 8), rows(1, 8), rows(8)), r"residual has shape \(1, 8\), expected \(4, 8\)"),
        (lambda: add_rmsnorm(rows(4, 0), rows(4, 0), rows(0)), "last dimension of x is 0"),
        (lambda: add_rmsnorm(*[rows(1, MAX_HIDDEN + 1)] * 2, rows(MAX_HIDDEN + 1)), "supported: 1…65536"),
        (lambda: add_rmsnorm(rows(4, 8), rows(4, 8), rows(8, dtype=torch.half)), "weight is torch.float16 but x is"),
        (lambda: add_rmsnorm(*[rows(4, 8, dtype=torch.double)] * 2, rows(8)), "supported: torch.float32"),
        (lambda: add_rmsnorm(rows(4, 8), rows(4, 8), rows(8), out=rows(8, 4).t()), "must be contiguous"),
        (lambda: add_rmsnorm(rows(2, 2, 8), rows(2, 2, 8), rows(8), out=rows(2, 3, 8)[:, :2]), "no view of rows"),
        (lambda: silu_and_mul(rows(4, 7)), "gate and up"),
        (lambda: silu_and_mul(rows(4, 8), out=rows(4, 8)), r"out has shape \(4, 8\), expected \(4, 4\)"),
        (lambda: silu_and_mul(rows(4, 8).to("meta")), "x is on meta"),
    ],
)
def test_refusals_name_the_argument(call, message):
    with pytest.raises(Refused, match=message):
        call()


def test_one_dimension_is_one_row():
    x = torch.randn(16, device=DEVICE)
    assert torch.equal(silu_and_mul(x), silu_and_mul(x[None])[0])


def test_empty_batches_give_empty_results():
    y, total = add_rmsnorm(rows(0, 8), rows(0, 8), rows(8))
    assert y.shape == total.shape == (0, 8)
    assert silu_and_mul(rows(2, 0, 8)).shape == (2, 0, 4)


def test_expanded_inputs_are_read_through_their_strides():
    x = torch.randn(1, 32, device=DEVICE)
    assert torch.equal(silu_and_mul(x.expand(5, 32)), silu_and_mul(x.repeat(5, 1)))


def test_modelled_bytes_count_each_tensor_once():
    contracts = load_contracts()
    rms = contracts["add_rmsnorm"].workload("meta", torch.bfloat16, rows=16384, hidden=4096)
    silu = contracts["silu_and_mul"].workload("meta", torch.bfloat16, rows=8192, hidden=14336)
    assert contracts["add_rmsnorm"].bytes_moved(rms) == (4 * 16384 + 1) * 4096 * 2
    assert contracts["silu_and_mul"].bytes_moved(silu) == 3 * 8192 * 14336 * 2


@pytest.fixture
def module(monkeypatch):
    """An importable module of the user's, to be filled by the test."""
    made = types.ModuleType("user_kernels")
    monkeypatch.setitem(sys.modules, "user_kernels", made)
    return made


def test_a_module_with_some_ops_is_a_target(module):
    module.silu_and_mul = load_contracts()["silu_and_mul"].eager
    target = load_kernels("user_kernels")
    assert set(target.functions) == {"silu_and_mul"}
    assert not target.takes_outs(load_contracts()["silu_and_mul"])


def test_a_module_without_ops_is_refused_with_the_signatures(module):
    with pytest.raises(KitError, match=r"holds none of the ops.*add_rmsnorm\(x, residual, weight"):
        load_kernels("user_kernels")


def test_an_unknown_module_is_refused_with_the_remedy():
    with pytest.raises(KitError, match=r"cannot import 'no_such_kernels'.*PYTHONPATH"):
        load_kernels("no_such_kernels")


def test_what_a_foreign_kernel_raises_is_its_fault(module):
    module.silu_and_mul = lambda x: 1 / 0
    op = load_contracts()["silu_and_mul"]
    with pytest.raises(TargetFault, match=r"silu_and_mul\(x \(2, 8\) torch.float32\) raised ZeroDivisionError"):
        load_kernels("user_kernels").run(op, op.make(2, 4, torch.float32, 0, "normal"))


def test_the_wrong_number_of_outputs_is_its_fault(module):
    module.add_rmsnorm = lambda x, residual, weight, eps: x
    op = load_contracts()["add_rmsnorm"]
    with pytest.raises(TargetFault, match="must return tensors \\(y, residual\\), got \\(Tensor\\)"):
        load_kernels("user_kernels").run(op, op.make(2, 4, torch.float32, 0, "normal"))
