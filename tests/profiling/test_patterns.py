"""Compositions are found in a sequence of operators, each by the op that covers it."""

import pytest
import torch

from gaugeblock.conformance.profiling.ceilings import Ceilings
from gaugeblock.conformance.profiling.costs import name_list_dtypes
from gaugeblock.conformance.profiling.patterns import PATTERNS, find
from gaugeblock.conformance.profiling.trace import parse_trace
from gaugeblock.kernels.contract import load_contracts

from .made import cat, named, op, trace

ROW = [1, 16, 256]
HEADS = [1, 4, 16, 64]
NORM = [
    op("aten::to", ROW, inner=(op("aten::copy_", ROW, ROW, us=4),)),
    *named("pow mean add rsqrt mul", ROW),
    op("aten::to", ROW, inner=(op("aten::copy_", ROW, ROW, us=4),)),
    op("aten::mul", [256], ROW),
]
LINEAR = op("aten::linear", ROW, [512, 256], us=500, inner=(op("aten::mm", [16, 256], [256, 512], us=490),))
SDPA = "aten::scaled_dot_product_attention"
VIEW = op("aten::view", ROW, us=1)
TURN = [*named("mul neg", HEADS), cat(HEADS), *named("mul add", HEADS)]
HALF = [1, 4, 16, 32]
TURN_BY_HALVES = [*named("mul mul sub mul mul add", HALF), cat(HALF, HALF)]


def candidates(ceilings=None, **phases):
    found = parse_trace(trace(**phases))
    name_list_dtypes(found.calls)
    return find(found, ceilings, PATTERNS)


def one(**phases):
    (found,) = candidates(**phases)
    return found


@pytest.mark.parametrize(
    ("ops", "expected", "operators"),
    [
        ([op("aten::add", ROW, ROW), *NORM], "add_rmsnorm", 9),
        ([op("aten::add", ROW, ROW), op("aten::rms_norm", ROW)], "add_rmsnorm", 2),
        (NORM, "add_rmsnorm", 8),
        ([LINEAR, op("aten::silu", ROW), VIEW, LINEAR, op("aten::mul", ROW, ROW)], "silu_and_mul", 2),
        ([op("aten::gelu", ROW), op("aten::mul", ROW, ROW)], "gelu_and_mul", 2),
        ([*TURN, *TURN], "rope", 10),
        ([*TURN_BY_HALVES, *TURN_BY_HALVES], "rope", 14),
        ([op("aten::layer_norm", ROW), LINEAR, op("aten::gelu", ROW)], "ln_linear", 3),
        ([op("aten::layer_norm", ROW), LINEAR, *named("mul pow mul add mul tanh add mul", ROW)], "ln_linear", 10),
        ([op("aten::softmax", ROW)], "softmax", 1),
        ([cat(HEADS), cat(HEADS), op(SDPA, HEADS, HEADS, HEADS)], "extend_attention", 3),
        ([op(SDPA, [1, 4, 1, 64], HEADS, HEADS)], "decode_attention", 1),
        (
            [op("aten::matmul", HEADS, [1, 4, 64, 16]), *named("mul add softmax", [1, 4, 16, 16]),
             op("aten::matmul", [1, 4, 16, 16], HEADS)],
            "extend_attention", 5,
        ),
        ([*named("div softmax sort cumsum", [1, 1000]), op("aten::multinomial", [1, 1000])], "sampling", 5),
        ([op("aten::_int_mm", [16, 64], [64, 8], dtype="signed char"), *named("mul mul", [16, 8])], "int8_linear", 3),
    ],
)  # fmt: skip
def test_a_composition_is_found_with_the_op_that_covers_it(ops, expected, operators):
    found = one(prefill=ops)
    assert found.op == expected
    assert found.places == 1
    assert len(found.operators.split()) == operators


def test_every_op_that_is_named_is_one_of_ours():
    named_ops = {pattern.op for pattern in PATTERNS} - {"attention"} | {"decode_attention", "extend_attention"}
    assert named_ops <= set(load_contracts())


@pytest.mark.parametrize(
    "ops",
    [
        [LINEAR, LINEAR, op("aten::add", ROW, ROW)],
        named("pow mean add rsqrt", ROW),
        [op("aten::silu", ROW), op("aten::add", ROW, ROW)],
        [*named("mul neg", HEADS), *named("mul add", HEADS)],
        [VIEW],
        [],
    ],
)
def test_no_composition_where_there_is_none(ops):
    assert candidates(prefill=ops) == []


def test_what_lies_in_two_phases_is_no_composition():
    assert candidates(prefill=[op("aten::silu", ROW)], decode=[op("aten::mul", ROW, ROW)]) == []


def test_places_are_counted_by_phase():
    block = [op("aten::add", ROW, ROW), *NORM, LINEAR]
    found = one(prefill=block * 2, decode=block * 3)
    assert found.phases == {"prefill": 2, "decode": 3}


def test_the_product_between_activation_and_gate_is_not_part_of_the_composition():
    found = one(prefill=[op("aten::silu", ROW, us=10), LINEAR, op("aten::mul", ROW, ROW, us=20)])
    assert found.self_us == pytest.approx(30)
    assert found.launches == 2
    assert found.bytes == 2 * (2 + 3) * 16 * 256
    assert found.fused_bytes == 2 * 3 * 16 * 256


def test_bytes_of_the_fused_op_agree_with_its_contract():
    """The model of a candidate and the contract of the op count the same traffic."""
    contracts = load_contracts()
    rows = [16, 256]
    found = one(prefill=[op("aten::add", rows, rows), *(NORM[:-1]), op("aten::mul", [256], rows)])
    case = contracts["add_rmsnorm"].make(16, 256, torch.bfloat16)
    assert found.fused_bytes == contracts["add_rmsnorm"].bytes_moved(case)
    found = one(prefill=[op("aten::silu", rows), op("aten::mul", rows, rows)])
    case = contracts["silu_and_mul"].make(16, 256, torch.bfloat16)
    assert found.fused_bytes == contracts["silu_and_mul"].bytes_moved(case)


def test_the_largest_possible_saving_comes_first():
    ceilings = Ceilings("card", copy_gb_s=1e6, gemm_tflop_s=1e6, dtype="bfloat16")
    slow = [op("aten::silu", ROW, us=900), op("aten::mul", ROW, ROW, us=900)]
    fast = [op("aten::add", ROW, ROW, us=20), *NORM]
    assert [c.op for c in candidates(ceilings, prefill=[*fast, LINEAR, *slow])] == ["silu_and_mul", "add_rmsnorm"]


def test_a_waiting_device_makes_launches_count():
    """Kernels of a microsecond behind launches of forty: fusing saves the host's time, not the device's."""
    ops = [op(f"aten::{name}", ROW, ROW, us=40, kernels=(1.0,)) for name in ("silu", "mul")]
    found = one(decode=ops)
    assert found.self_us == 2.0
    assert found.launches == 2
    assert 30 < found.waiting_us < 40
