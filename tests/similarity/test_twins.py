"""Twins: the same function, other roundings."""

import numpy as np
import pytest
import torch

from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.similarity.false_alarms import VARIANTS, compare_twin, held_to, interval, missed, statistics
from gaugeblock.fixtures.similarity.gates import GATES
from gaugeblock.fixtures.similarity.measure_null import load_bench, measure_null
from gaugeblock.fixtures.similarity.summary import summarise
from gaugeblock.fixtures.similarity.twins import twin
from gaugeblock.fixtures.similarity.variants import bf16, int8_weights, plain, rounded


@pytest.fixture(scope="module")
def bench():
    return load_bench(tiny_model(), count=3)


def test_a_twin_is_the_same_function_with_other_weights(bench):
    first, second = twin(bench.model, 1), twin(bench.model, 2)
    for other in (first, second):
        assert summarise(bench.against_fp32(plain(other))).gap.value < 1e-3
    layers = [model.model.layers[0] for model in (bench.model, first, second)]
    for name in ("self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj", "self_attn.q_proj"):
        weights = [layer.get_submodule(name).weight for layer in layers]
        assert not torch.allclose(weights[0], weights[1])
        assert not torch.allclose(weights[1], weights[2])


@pytest.mark.parametrize("make", [bf16, int8_weights])
def test_roundings_fall_elsewhere_and_no_wider(bench, make):
    own = 1 - np.concatenate(bench.overlaps(make(bench.model)))
    others = [1 - np.concatenate(bench.overlaps(make(twin(bench.model, seed)))) for seed in range(6)]
    assert len({own.mean(), *(other.mean() for other in others)}) == 7
    assert 0.9 < np.mean(others) / own.mean() < 1.1, (
        "twins are coarser or finer than the model: their factors are too wide"
    )


def test_the_weights_errors_are_drawn_anew(bench):
    def errors(model):
        return (
            rounded(model.model.layers[1].mlp.down_proj.weight) - model.model.layers[1].mlp.down_proj.weight
        ).flatten()

    own, other = errors(bench.model), errors(twin(bench.model, 3))
    assert abs(torch.corrcoef(torch.stack((own, other)))[0, 1]) < 0.2


def test_what_a_gate_holds_against_overlaps():
    gate = GATES["int8"].calibrated(0.9, 0.85)
    right = [np.full(100, 0.99), np.full(100, 0.98)]
    assert missed(statistics(right), gate) == ()
    right[1][:3] = 0.1
    assert missed(statistics(right), gate) == ("first percentile", "lowest 1%")
    assert missed(statistics([np.full(100, 0.99), np.full(100, 0.94)]), gate) == ("worst prompt",)
    assert missed(statistics([np.full(100, 0.94)]), GATES["int8"]) == ("worst prompt",)


def test_each_twin_is_compared_in_every_precision_by_its_own_gate(bench):
    held = held_to(measure_null(bench, VARIANTS, roundings=3), VARIANTS)
    found = list(compare_twin(bench, held, 0, rounds=3))
    assert {one.variant: one.gate for one in found} == {
        "fp16": "bf16", "bf16": "bf16", "int8-weights": "int8", "int8-kv": "int8", "fp8-kv": "int8"
    }  # fmt: skip
    assert all(one.alarm is None for one in found)


def test_intervals():
    low, high = interval(0, 240)
    assert low == pytest.approx(0.0, abs=1e-8)
    assert high == pytest.approx(1 - 0.025 ** (1 / 240), abs=1e-6)
