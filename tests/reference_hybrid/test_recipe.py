"""The INT8 recipe: what its steps bring, and that nothing else is changed."""

from dataclasses import replace

import pytest
import torch

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.similarity.measures import overlap
from gaugeblock.fixtures.similarity.prompts import texts
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.engine.tokenizer import Tokenizer
from gaugeblock.reference.hybrid.int8 import MATRICES, Int8Matrix, quantize, scales_of
from gaugeblock.reference.hybrid.recipe import Recipe, calibration_prompts, quantize_model
from gaugeblock.reference.hybrid.rounding import compensated

PLAIN = Recipe(rotate_stream=False, rotate_values=False, rotate_down=False, calibrate=False, second_digit=())


@pytest.fixture(scope="module")
def model():
    folder = tiny_model()
    config = load_config(folder)
    return config, load_weights(folder, config), calibration_prompts(Tokenizer(str(folder)).encode)[:3]


@pytest.fixture(scope="module")
def quantized(model):
    config, weights, prompts = model
    return quantize_model(weights, config, prompts)


def error(model, weights):
    config, exact, _ = model
    ids = torch.tensor([256, *b"def close(self):\n    if self.file is not None:\n        self.file.close()\n"])
    rows = [LlamaModel(config, one).forward_full(ids).numpy() for one in (exact, weights)]
    return 1 - float(overlap(*rows).mean())


def test_every_matrix_is_int8_and_a_tied_head_is_kept_once(model, quantized):
    _, weights, _ = model
    assert all(isinstance(getattr(layer, name), Int8Matrix) for layer in quantized.layers for name in MATRICES)
    assert quantized.head.values is quantized.embed.values
    assert quantized.head.scales is quantized.embed.scales
    assert [len(quantized.head.turn), len(quantized.embed.turn)] == [1, 0]
    untied = quantize_model(replace(weights, head=weights.embed.clone()), *model[::2], Recipe(calibrate=False))
    assert untied.head.values is not untied.embed.values


def test_each_step_lessens_the_error(model, quantized):
    config, weights, prompts = model
    steps = [PLAIN, replace(PLAIN, rotate_down=True), Recipe(calibrate=False)]
    errors = [error(model, quantize_model(weights, config, prompts, step)) for step in steps]
    assert errors == sorted(errors, reverse=True)
    assert error(model, quantized) < 0.6 * errors[0]


def test_the_same_input_gives_the_same_bits_and_is_left_alone(model, quantized):
    config, weights, prompts = model
    before = weights.layers[0].down.clone()
    again = quantize_model(weights, config, prompts)
    for one, other in zip(quantized.layers, again.layers, strict=True):
        assert all(torch.equal(getattr(one, name).values, getattr(other, name).values) for name in MATRICES)
    assert torch.equal(quantized.head.values, again.head.values)
    assert torch.equal(weights.layers[0].down, before)


def test_calibrating_on_nothing_is_refused(model):
    config, weights, _ = model
    with pytest.raises(ValueError, match="needs prompts"):
        quantize_model(weights, config, [])
    with pytest.raises(ValueError, match="needs prompts"):
        quantize_model(weights, config, [[], []])


def test_the_calibration_texts_are_none_that_is_measured_on():
    found = calibration_prompts(lambda text: list(text))
    assert len(found) == len(set(found)) == 44
    openings = {text[:24] for text in texts()}
    assert not any("".join(letters)[:24] in openings for letters in found)


@pytest.mark.parametrize("width", [1, 64, 100])
def test_rounding_that_makes_up_for_its_errors(width):
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(400, width, generator=generator) + 2 * torch.randn(400, 1, generator=generator)
    weight = torch.randn(16, width, generator=generator)
    scales = scales_of(weight)
    values = compensated(weight, scales, x.t() @ x)
    assert values.dtype == torch.int8
    assert (values.float() - weight / scales).abs().max() < 3, "errors are carried a few steps, no further"
    wanted = x @ weight.t()
    off = [float((x @ (v.float() * scales).t() - wanted).norm()) for v in (values, quantize(weight).values)]
    assert off[0] <= off[1] * (1 if width == 1 else 0.7)


def test_inputs_that_are_all_zero_leave_plain_rounding():
    weight = torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    assert torch.equal(compensated(weight, scales_of(weight), torch.zeros(10, 10)), quantize(weight).values)
