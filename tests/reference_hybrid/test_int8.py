"""The INT8 path: scales, exact sums, and the same model code over quantised weights."""

from dataclasses import replace

import pytest
import torch

from gaugeblock.reference.hybrid import int8


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *size: torch.randn(*size, generator=generator)


def test_every_value_is_within_half_a_step(randn):
    weight = randn(6, 50) * torch.tensor([1e-4, 1e-2, 1.0, 1e2, 1e4, 0.0])[:, None]
    matrix = int8.quantize(weight)
    assert matrix.values.dtype == torch.int8
    assert matrix.values.abs().max() == 127
    assert matrix.values[:5].abs().amax(1).tolist() == [127] * 5, "each channel uses its whole range"
    assert ((matrix.dequantize() - weight).abs() <= matrix.scales[:, None] / 2 * 1.001).all()
    assert matrix.scales[5] > 0
    assert not matrix.values[5].any()


def test_a_row_does_not_depend_on_the_others(randn):
    x, matrix = randn(17, 96) * torch.logspace(-2, 2, 17)[:, None], int8.quantize(randn(40, 96))
    alone = torch.cat([int8.linear(row[None], matrix) for row in x])
    assert torch.equal(int8.linear(x, matrix), alone)


def test_a_matrix_is_the_weight_of_a_linear_layer_and_nothing_else(randn):
    x, weight = randn(3, 32), randn(8, 32)
    matrix = int8.quantize(weight)
    assert torch.equal(torch.nn.functional.linear(x, matrix), int8.linear(x, matrix))
    assert torch.equal(torch.nn.functional.embedding(torch.tensor([5, 0]), matrix), matrix.dequantize()[[5, 0]])
    with pytest.raises(TypeError, match="linear layer"):
        torch.nn.functional.linear(x, matrix, randn(8))
    with pytest.raises(TypeError, match="linear layer"):
        torch.add(x, matrix)


def test_a_products_operands_are_left_alone(randn):
    x, weight = randn(4, 32), randn(8, 32)
    before = x.clone(), weight.clone()
    int8.linear(x, int8.quantize(weight))
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])


def test_a_second_digit_leaves_the_weights_error_alone(randn):
    x, matrix = randn(5, 96), int8.quantize(randn(16, 96))
    exact = x.double() @ matrix.dequantize().double().t()
    one, two = (float((int8.linear(x, m).double() - exact).abs().max()) for m in (matrix, replace(matrix, digits=2)))
    assert two < one / 100


def test_two_digits_of_a_token_do_not_depend_on_the_others(randn):
    x, matrix = randn(9, 64) * torch.logspace(-2, 2, 9)[:, None], replace(int8.quantize(randn(24, 64)), digits=2)
    alone = torch.cat([int8.linear(row[None], matrix) for row in x])
    assert torch.equal(int8.linear(x, matrix), alone)
