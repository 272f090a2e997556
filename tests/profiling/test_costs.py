"""Modelled bytes and operations against the same numbers by hand."""

import pytest

from gaugeblock.conformance.profiling.ceilings import Ceilings
from gaugeblock.conformance.profiling.costs import cost, name_list_dtypes, total
from gaugeblock.conformance.profiling.operators import operators
from gaugeblock.conformance.profiling.trace import OpCall, parse_trace

from .made import cat, op, trace


def call(name, *shapes, dtype="c10::BFloat16", dtypes=None, strides=(), values=None):
    kinds = list(dtypes or [dtype] * len(shapes))
    return OpCall(name, 0.0, 1.0, 0, list(shapes), kinds, list(strides), list(values or [""] * len(shapes)))


@pytest.mark.parametrize(
    ("made", "moved", "flops"),
    [
        (call("aten::mm", [2, 8], [8, 4]), 2 * (16 + 32 + 8), 2 * 2 * 8 * 4),
        (call("aten::addmm", [4], [2, 8], [8, 4]), 2 * (4 + 16 + 32 + 8), 2 * 2 * 8 * 4),
        (call("aten::bmm", [3, 2, 8], [3, 8, 4]), 2 * 3 * (16 + 32 + 8), 3 * 2 * 2 * 8 * 4),
        (call("aten::mul", [2, 8], [8]), 2 * (16 + 8 + 16), 0),
        (call("aten::mul_", [2, 8], [2, 1]), 2 * (16 + 2 + 16), 0),
        (call("aten::add", [2, 8], [2, 8], dtypes=["float", "c10::BFloat16"]), 64 + 32 + 64, 0),
        (call("aten::mul", [4, 8], [4, 8], strides=[[8, 1], [0, 1]]), 2 * (32 + 8 + 32), 0),
        (call("aten::copy_", [2, 8], [2, 8], dtypes=["float", "c10::BFloat16"]), 64 + 32, 0),
        (call("aten::mean", [2, 8], dtype="float"), 64 + 8, 0),
        (call("aten::_softmax", [2, 8], dtype="float"), 128, 0),
        (call("aten::embedding", [100, 8], [3], dtypes=["c10::BFloat16", "long int"]), 24 + 2 * 2 * 24, 0),
        (call("aten::_int_mm", [2, 8], [8, 4], dtype="signed char"), 16 + 32 + 4 * 8, 2 * 2 * 8 * 4),
    ],
)
def test_cost_of_an_operator(made, moved, flops):
    found = cost(made)
    assert (found.bytes, found.flops) == (moved, flops)


def test_a_causal_mask_halves_the_work_of_attention_but_not_of_one_query():
    q, kv = [1, 4, 16, 64], [1, 4, 16, 64]
    name = "aten::_scaled_dot_product_flash_attention"
    whole = cost(call(name, q, kv, kv))
    causal = cost(call(name, q, kv, kv, [], [], values=["", "", "", "0.", "True"]))
    assert whole.flops == 2 * causal.flops == 4 * 4 * 16 * 16 * 64
    assert whole.bytes == 2 * 4 * 4 * 16 * 64
    one = cost(call(name, [1, 4, 1, 64], kv, kv, [], [], values=["", "", "", "0.", "True"]))
    assert one.flops == 4 * 4 * 16 * 64


def test_a_python_number_converted_on_the_way_does_not_hide_the_product():
    to = op("aten::to", [], us=2, inner=(op("aten::copy_", [], [], us=1),))
    root = parse_trace(trace(prefill=[op("aten::mul", [64], [64], us=9, inner=(to,))])).calls[0]
    assert total(root).bytes == 3 * 64 * 2


def test_a_composite_costs_what_its_parts_cost():
    inner = op("aten::mm", [2, 8], [8, 4], us=9)
    root = parse_trace(trace(prefill=[op("aten::linear", [2, 8], [4, 8], us=30, inner=(inner,))])).calls[0]
    assert total(root).bytes == 2 * (16 + 32 + 8)
    rows = {
        row.name: row
        for row in operators(
            parse_trace(trace(prefill=[op("aten::linear", [2, 8], [4, 8], us=30, inner=(inner,))])), None
        )
    }
    assert rows["aten::linear"].bytes is None
    assert rows["aten::mm"].bytes == 2 * (16 + 32 + 8)


@pytest.mark.parametrize(
    "made", [call("aten::view", [2, 8]), call("my::op", [2, 8]), call("aten::mm"), call("aten::mm", [2])]
)
def test_what_no_rule_knows_has_no_cost_rather_than_none_at_all(made):
    assert cost(made) is None


def test_a_list_of_tensors_takes_the_dtype_of_the_call_before_it():
    calls = parse_trace(trace(prefill=[op("aten::neg", [4, 8]), cat([4, 8], [4, 8])])).calls
    name_list_dtypes(calls)
    assert cost(calls[1]).bytes == 2 * 64 * 2


def test_the_roofline_share_is_the_floor_over_the_time():
    ceilings = Ceilings("card", copy_gb_s=1.0, gemm_tflop_s=1.0, dtype="bfloat16")
    rows = {r.name: r for r in operators(parse_trace(trace(prefill=[
        op("aten::add", [1000], [1000], us=12.0),  # 6000 bytes at 1 GB/s: 6 µs
        op("aten::mm", [1000, 1000], [1000, 1000], us=8000.0),  # 2 ms for its operations, 6 ms for its bytes
    ])), ceilings)}  # fmt: skip
    assert rows["aten::add"].roofline == pytest.approx(0.5)
    assert rows["aten::mm"].roofline == pytest.approx(6000 / 8000)
