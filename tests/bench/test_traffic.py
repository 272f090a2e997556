"""Counted bytes: of PyTorch's operators, and of kernels in Triton's interpreter."""

import pytest
import torch

from gaugeblock.conformance.bench.traffic import composition_bytes, interpreted_bytes
from gaugeblock.kernels.contract import Case, load_contracts

CONTRACTS = load_contracts()


def count(function, *tensors):
    return composition_bytes(function, Case("", torch.float32, {str(i): t for i, t in enumerate(tensors)}))


def test_each_operator_reads_its_inputs_and_writes_its_result():
    x, y = torch.ones(10), torch.ones(10)
    traffic = count(lambda a, b: (a + b) * 2, x, y)
    assert (traffic.read, traffic.written, traffic.launches) == (80 + 40, 40 + 40, 2)


def test_views_and_allocations_move_nothing():
    traffic = count(lambda a: torch.empty_like(a).view(-1)[:3] is None or a.view(2, 5).t(), torch.ones(10))
    assert traffic.total == 0


def test_an_operator_in_place_writes_its_first_input():
    traffic = count(lambda a: a.add_(1), torch.ones(10))
    assert (traffic.read, traffic.written) == (40, 40)


def test_a_copy_to_contiguous_is_counted():
    assert count(lambda a: a.t().contiguous(), torch.ones(4, 5)).total == 2 * 80


@pytest.mark.parametrize("name", ["silu_and_mul", "gelu_and_mul", "add_rmsnorm", "softmax"])
def test_a_fused_kernel_moves_exactly_the_modelled_bytes(name):
    op = CONTRACTS[name]
    rows = 16 if name == "add_rmsnorm" else 5  # one program for all rows: the shared weight is loaded once
    case = op.make(rows, 1000, torch.bfloat16, 3)
    with interpreted_bytes() as traffic:
        op.kernel(*case.inputs.values(), **case.params)
    assert traffic.launches == 1
    assert traffic.total == op.bytes_moved(case)


def test_counting_ends_with_its_block():
    op = CONTRACTS["softmax"]
    case = op.make(2, 64, torch.float32, 3)
    with interpreted_bytes() as traffic:
        pass
    op.kernel(*case.inputs.values(), **case.params)
    assert traffic.total == 0
