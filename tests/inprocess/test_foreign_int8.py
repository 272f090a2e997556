"""``--gb-int8``: another module's INT8 linear under the same checks."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from gaugeblock.conformance.hybrid.test_hyb_027_matrices_are_kept_apart import test_hyb_027 as kept_apart
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.peers import torch_dynamic
from gaugeblock.fixtures.targets.inprocess import load_inprocess, quantized
from gaugeblock.fixtures.targets.int8_target import load_int8, try_int8
from gaugeblock.fixtures.targets.weight_bytes import held_bytes
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.hybrid import int8


@pytest.fixture
def foreign(monkeypatch):
    """Make a module of some functions."""

    def make(**functions):
        module = ModuleType("somebodys_int8")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, "somebodys_int8", module)
        return module.__name__

    return make


def test_a_foreign_linear_stands_in_for_every_layers_matrices(foreign):
    calls = []

    def linear(x, matrix):
        calls.append(x.shape)
        return int8.linear(x, matrix)

    target = load_int8(foreign(quantize=int8.quantize, linear=linear))
    base = load_inprocess(tiny_model())
    rows = quantized(base, target).one_shot(range(20))
    assert len(calls) == 4 * base.config.num_hidden_layers
    assert 0 < abs(rows - base.one_shot(range(20))).max() < 2
    model = quantized(base, target)
    with pytest.raises(TypeError, match="weight of a linear layer"):
        torch.add(torch.ones(1), model.weights.layers[0].out)


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ({}, "lacks quantize and linear"),
        ({"quantize": int8.quantize}, "lacks linear"),
        ({"quantize": int8.quantize, "linear": lambda x, m: x / 0 + m}, "multiplies no matrix: it raised TypeError"),
        ({"quantize": int8.quantize, "linear": lambda x, m: x}, r"float32 \[2, 16\] instead of float32 \[2, 8\]"),
        ({"quantize": int8.quantize, "linear": lambda x, m: None}, "gave None instead"),
        ({"quantize": int8.quantize, "linear": lambda x, m: int8.linear(x, m).double()}, "gave torch.float64"),
    ],
)
def test_a_module_that_multiplies_nothing_is_refused(foreign, functions, words):
    with pytest.raises(KitError, match=words):
        try_int8(foreign(**functions))


def test_one_scale_for_a_batch_makes_a_row_depend_on_the_others():
    """What the adapter of PyTorch's dynamic quantisation shows, and HYB-004 finds."""
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [100.0]])
    matrix = torch_dynamic.quantize(torch.eye(64))
    together, alone = torch_dynamic.linear(x, matrix)[0], torch_dynamic.linear(x[:1], matrix)[0]
    assert (alone - x[0]).abs().max() < 0.05
    assert (together - x[0]).abs().max() > 0.3
    ours = int8.quantize(torch.eye(64))
    assert torch.equal(int8.linear(x, ours)[0], int8.linear(x[:1], ours)[0])


class PackedById:
    """A cache by id, whose first matrices live on for a while: ids come back late, as they do by chance."""

    def __init__(self):
        self.alive, self.packed = [], {}

    def quantize(self, weight):
        matrix = int8.quantize(weight)
        if len(self.alive) < 50:
            self.alive.append(matrix)
        return matrix

    def linear(self, x, matrix):
        return int8.linear(x, self.packed.setdefault(id(matrix), replace(matrix)))


def test_matrices_are_made_until_ids_come_back():
    """HYB-027 made twelve, of which one or two had another one's id: a cache by id was seen by luck."""
    with pytest.raises(AssertionError, match="another one's product"):
        kept_apart(PackedById(), lambda name, value: None)
    said = {}
    kept_apart(int8, said.__setitem__)
    assert "of them with another one's id" in said["evidence"]


def test_the_bytes_of_a_model_count_shared_memory_once():
    base = load_inprocess(tiny_model())
    wide, narrow = (held_bytes(LlamaModel(t.config, t.weights)) for t in (base, quantized(base)))
    assert wide == 2 * ((tiny_model() / "model.safetensors").stat().st_size - _header())  # bf16 in the file
    assert 0.25 < narrow / wide < 0.29


def _header():
    with (tiny_model() / "model.safetensors").open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")
