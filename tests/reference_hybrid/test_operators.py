"""The operators of the model: their names, and that the declared edges are those over which values really flow."""

from dataclasses import replace

import pytest
import torch

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.layers import Linear
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.hybrid import int8
from gaugeblock.reference.hybrid.operators import OF_LAYER, Edge, edges, of_layer, operator_names


@pytest.fixture(scope="module")
def weights():
    return load_weights(tiny_model(), load_config(tiny_model()))


@pytest.fixture
def model(weights):
    return LlamaModel(load_config(tiny_model()), weights)


def test_every_operator_has_its_name_in_the_order_of_running(model):
    ran = []
    for name in operator_names(model):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    model.forward_full(torch.arange(3))
    layers = [of_layer(layer, name) for layer in range(4) for name in OF_LAYER]
    assert ran == list(operator_names(model)) == ["model.embed_tokens", *layers, "model.norm", "lm_head"]


def test_the_edges_are_those_over_which_values_flow(model):
    made, seen = {}, []  # which operator gave a tensor, and as what: each is kept, so that no id comes twice

    def hook(name):
        def watch(_, args, out):
            for value in args:
                if isinstance(value, torch.Tensor) and id(value) in made:
                    producer, place, _ = made[id(value)]
                    seen.append(Edge(producer, name, value.shape[1], producer == "model.norm", residual=place == 1))
            for place, value in enumerate(out if isinstance(out, tuple) else (out,)):
                made[id(value)] = (name, place, value)

        return watch

    for name in operator_names(model):
        model.get_submodule(name).register_forward_hook(hook(name))
    model.forward_full(torch.arange(5))
    assert sorted(seen, key=str) == sorted(edges(model.config), key=str)


def test_bytes_of_an_edge():
    assert Edge("a", "b", 8).nbytes(tokens=5, logit_rows=1) == 160
    assert Edge("a", "b", 8, logit_rows=True).nbytes(tokens=5, logit_rows=1) == 32


def test_weights_can_be_replaced_by_others_of_either_kind(model, weights):
    linear = Linear()
    first, second = torch.randn(3, 4), torch.randn(3, 4)
    x = torch.randn(2, 4)
    for weight in (first, int8.quantize(second), second):
        linear.hold(weight)
        assert torch.equal(linear(x), torch.nn.functional.linear(x, weight))
    assert [name for name, _ in linear.named_buffers()] == ["weight"]
    ids = torch.arange(20)
    exact = model.forward_full(ids)
    layers = tuple(replace(layer, down=int8.quantize(layer.down)) for layer in weights.layers)
    model.load(replace(weights, layers=layers))
    assert not torch.equal(model.forward_full(ids), exact)
    model.load(weights)
    assert torch.equal(model.forward_full(ids), exact)
