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
from gaugeblock.fixtures.similarity.variants import bf16, plain


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


def test_roundings_fall_elsewhere_and_no_wider(bench):
    own = summarise(bench.against_fp32(bf16(bench.model)))
    others = [summarise(bench.against_fp32(bf16(twin(bench.model, seed)))) for seed in (1, 2)]
    assert len({own.overlap, *(other.overlap for other in others)}) == 3
    for other in others:
        assert 0.5 < (1 - other.overlap) / (1 - own.overlap) < 2


def test_what_a_gate_holds_against_overlaps():
    gate = GATES["int8"].calibrated(0.9, 0.85)
    right = [np.full(100, 0.99), np.full(100, 0.98)]
    assert missed(statistics(right), gate) == ()
    right[1][:3] = 0.1
    assert missed(statistics(right), gate) == ("first percentile", "lowest 1%")
    assert missed(statistics([np.full(100, 0.99), np.full(100, 0.94)]), gate) == ("worst prompt",)
    assert missed(statistics([np.full(100, 0.94)]), GATES["int8"]) == ("worst prompt",)


def test_each_twin_is_compared_in_every_precision_by_its_own_gate(bench):
    held = held_to(measure_null(bench, VARIANTS), VARIANTS)
    found = list(compare_twin(bench, held, 0, rounds=3))
    assert {one.variant: one.gate for one in found} == {
        "fp16": "bf16", "bf16": "bf16", "int8-weights": "int8", "int8-kv": "int8", "fp8-kv": "int8"
    }  # fmt: skip
    assert all(one.alarm is None for one in found)


def test_intervals():
    low, high = interval(0, 240)
    assert low == pytest.approx(0.0, abs=1e-8)
    assert high == pytest.approx(1 - 0.025 ** (1 / 240), abs=1e-6)
