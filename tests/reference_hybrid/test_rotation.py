"""Rotations change no product, and spread what is loud."""

from dataclasses import replace

import pytest
import torch

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.hybrid.rotation import kronecker, orthogonal, rotate_stream, rotate_values, turn_input, turned

SIZES = [1, 2, 3, 7, 16, 36, 88, 192]


@pytest.mark.parametrize("size", SIZES)
def test_the_matrices_are_orthogonal_and_flat(size):
    first, second = kronecker(size)
    assert len(first) * len(second) == size
    for matrix in (orthogonal(size), torch.kron(first, second).double()):
        assert matrix.shape == (size, size)
        assert torch.allclose(matrix @ matrix.t(), torch.eye(size, dtype=torch.float64), atol=1e-6)
        odd = size // (size & -size)
        assert matrix.abs().max() <= (2 if odd > 1 else 1) ** 0.5 / size**0.5 * 1.0001


def test_a_common_width_has_two_small_factors():
    assert [len(factor) for factor in kronecker(1536)] == [32, 48]
    assert [len(factor) for factor in kronecker(7)] == [1, 7]


@pytest.mark.parametrize("size", [7, 36, 704])
def test_a_turn_is_the_kronecker_product(size):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, size, generator=generator) for rows in (3, 5))
    turn = kronecker(size)
    assert torch.allclose(turned(x, turn), x @ torch.kron(*turn).t(), atol=1e-5)
    assert torch.allclose(turned(x, turn) @ turn_input(weight, turn).t(), x @ weight.t(), atol=1e-3)
    assert torch.allclose(turned(x, (weight.t() @ weight,)), x @ weight.t() @ weight, rtol=1e-3, atol=1e-2)
    assert turned(x, ()) is x


def test_one_loud_channel_becomes_as_loud_as_all_others():
    x = torch.zeros(1, 1536)
    x[0, 700] = 2400
    spread = turned(x, kronecker(1536)).abs()
    assert spread.max() < 2 * 2400 / 1536**0.5


@pytest.fixture(scope="module")
def model():
    folder = tiny_model()
    config = load_config(folder)
    return config, load_weights(folder, config)


def logits(config, weights):
    return LlamaModel(config, weights).forward_full(torch.arange(60))


def test_a_rotated_stream_computes_the_same_model(model):
    config, weights = model
    rotated, before = rotate_stream(weights)
    assert rotated.head is rotated.embed, "a tied head stays one matrix with the embedding"
    assert not torch.allclose(rotated.embed, weights.embed)
    same = replace(rotated, head=rotated.head @ before)
    assert torch.allclose(logits(config, same), logits(config, weights), atol=1e-3)


def test_rotated_values_compute_the_same_model(model):
    config, weights = model
    rotated = rotate_values(weights, config)
    assert not torch.allclose(rotated.layers[0].out, weights.layers[0].out)
    kept = config.num_attention_heads * config.head_dim
    assert torch.equal(rotated.layers[0].qkv[:kept], weights.layers[0].qkv[:kept])
    assert torch.allclose(logits(config, rotated), logits(config, weights), atol=1e-3)
