"""One shape with made-up times: who is measured, who is not and why, and what is too fast to be true."""

from functools import partial
from itertools import repeat

import pytest
import torch

from gaugeblock.conformance.bench import measure as measuring
from gaugeblock.conformance.bench.budgets import BEST_PEER, Budget, Term
from gaugeblock.conformance.bench.ceilings import Ceilings
from gaugeblock.conformance.bench.implementations import Implementation
from gaugeblock.conformance.bench.measure import ANOTHER_ROUNDING, WRONG, hold, measure
from gaugeblock.conformance.bench.workloads import WORKLOADS
from gaugeblock.kernels.arguments import Unclaimed
from gaugeblock.kernels.contract import load_contracts

from .made_up import Timer, small

SILU = load_contracts()["silu_and_mul"]
CEILINGS = Ceilings(1.0, 1e9, None, [partial(torch.zeros, 1)])
LAUNCH, GRAPH = (small(w) for w in WORKLOADS if w.op == "silu_and_mul")


def eager(x):
    return SILU.eager(x)


def ours(x):
    return SILU.eager(x.float()).to(x.dtype)


def zeros(x):
    return torch.zeros_like(SILU.eager(x))


def rounded_thrice(x):
    gate, up = x.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up  # each of the three is rounded to the dtype of x


def too_few_bits(x):
    return SILU.eager(x.float()).to(torch.float8_e4m3fn).to(x.dtype)


def nan(x):
    return torch.full_like(SILU.eager(x), torch.nan)


def unclaimed(x):
    raise Unclaimed("no such form")


def broken(x):
    raise RuntimeError("out of\n registers")


def run(workload, implementations, times, copied=1.0):
    """Measure silu_and_mul; the slower a copy (µs), the larger is R."""

    def answer(name):
        short = name.rpartition(".")[2]
        return copied if short == "zeros" and ".test" not in name else times.get(short)

    return measure(workload, SILU, implementations, Timer(answer), CEILINGS, "cpu", rounds=3)


def entries(*functions, kind="peer"):
    return [Implementation(f.__name__, "ours" if i == 0 else kind, f) for i, f in enumerate(functions)]


def test_all_are_judged_by_the_contract_and_timed():
    shape = run(LAUNCH, entries(ours, eager), {"ours": 5.0, "eager": 9.0})
    first, second = shape.entries
    assert (first.launch.median, second.launch.median) == (5.0, 9.0)
    assert first.budget_used["out"] <= 1 < second.budget_used["out"]
    assert first.graph is None
    assert first.peak_bytes == 4096


def test_a_decode_step_is_timed_in_a_graph_too():
    shape = run(GRAPH, entries(ours), {"ours": 5.0})
    assert shape.entries[0].graph is not None
    assert shape.entries[0].best() is shape.entries[0].graph


def test_a_wrong_result_is_told_and_still_timed():
    shape = run(LAUNCH, entries(ours, zeros, nan), {"ours": 5.0})
    assert shape.entry("zeros").budget_used["out"] > 100
    assert shape.entry("nan").budget_used["out"] == WRONG


def test_what_is_not_offered_is_unsupported_and_what_raises_has_failed():
    shape = run(LAUNCH, entries(ours, unclaimed, broken), {"ours": 5.0})
    assert [(e.outcome, e.message) for e in shape.entries] == [
        ("measured", ""),
        ("unsupported", "no such form"),
        ("failed", "RuntimeError: out of registers"),
    ]
    assert shape.entry("broken").launch is None


def test_a_capture_that_is_refused_leaves_the_launches():
    times = iter([5.0, RuntimeError("capture"), 5.0, 5.0])
    timer = Timer(lambda name: next(times) if name.endswith("ours") else 1.0)
    shape = measure(GRAPH, SILU, entries(ours), timer, CEILINGS, "cpu", rounds=3)
    assert shape.entries[0].outcome == "measured"
    assert shape.entries[0].message == "graph: RuntimeError: capture"
    assert shape.entries[0].best() is shape.entries[0].launch


def test_who_fails_late_in_a_graph_keeps_its_launches_and_costs_nobody_anything():
    times = iter([5.0, 2.0, 5.0, RuntimeError("capture"), 5.0])
    timer = Timer(lambda name: next(times) if name.endswith("ours") else 9.0)
    shape = measure(GRAPH, SILU, entries(ours, eager), timer, CEILINGS, "cpu", rounds=3)
    assert shape.entry("ours").launch.rounds == (5.0, 5.0, 5.0)
    assert shape.entry("ours").graph is None
    assert shape.entry("eager").graph.rounds == (9.0, 9.0, 9.0)


def test_r_is_the_modelled_bytes_over_those_of_the_copy_of_the_same_round():
    shape = run(LAUNCH, entries(ours), {"ours": 4.0}, copied=1e7)
    assert shape.entries[0].r == pytest.approx(shape.bytes_moved / 4.0 / (Ceilings.COPIED / 1e7))


def test_a_time_that_the_card_cannot_reach_is_an_error_of_the_measurement():
    shape = run(LAUNCH, entries(ours), {"ours": 1e-3}, copied=1e9)
    assert shape.entries[0].outcome == "impossible"
    assert "faster than the card (R " in shape.entries[0].message


def budget(metric="times", against="", **bounds):
    return Budget(Term(metric, against=against, **bounds), None, 0.03, "made up")


def held(shape, one):
    hold(shape, one, Ceilings(1.0, 1e9, None, []))
    return shape.gate


@pytest.mark.parametrize("kind", ["baseline", "ours"])
def test_the_best_peer_is_the_fastest_that_is_no_baseline_and_not_ours(kind):
    shape = run(LAUNCH, entries(ours, eager, rounded_thrice), {"ours": 5.0, "eager": 4.0, "rounded_thrice": 10.0})
    shape.entries[1].kind = kind
    gate = held(shape, budget(against=BEST_PEER, at_most=1.0))
    assert (gate.verdict, gate.against, gate.value) == ("met", "rounded_thrice", 0.5)


def test_a_peer_that_honest_rounding_does_not_explain_is_not_the_one_to_beat():
    times = {"ours": 5.0, "zeros": 1.0, "nan": 1.0, "too_few_bits": 1.0, "rounded_thrice": 4.0, "eager": 9.0}
    shape = run(LAUNCH, entries(ours, zeros, nan, too_few_bits, rounded_thrice, eager), times)
    assert 1 < shape.entry("rounded_thrice").error <= ANOTHER_ROUNDING < shape.entry("too_few_bits").error
    gate = held(shape, budget(against=BEST_PEER, at_most=1.0))
    assert (gate.verdict, gate.against, gate.value) == ("missed", "rounded_thrice", 5.0 / 4.0)


def test_against_a_wrong_peer_nothing_is_judged():
    shape = run(LAUNCH, entries(ours, zeros), {"ours": 5.0, "zeros": 9.0})
    gate = held(shape, budget(against="zeros", at_most=1.0))
    assert (gate.verdict, gate.reason) == ("not judged", "zeros is wrong")


@pytest.mark.parametrize("function", [eager, rounded_thrice, zeros, nan])
def test_a_wrong_result_of_ours_meets_nothing(function):
    """Not even one that a peer may have: ours is held to the bound itself."""
    shape = run(LAUNCH, entries(function, ours), {function.__name__: 5.0, "ours": 9.0})
    gate = held(shape, budget(against="ours", at_most=1.0))
    assert gate.verdict == "not judged"
    assert "of its error budget" in gate.reason


def test_a_share_just_above_the_budget_is_not_rounded_into_it(monkeypatch):
    monkeypatch.setattr(measuring, "shares", lambda *_: {"out": 1.00001})
    assert run(LAUNCH, entries(ours), {"ours": 5.0}).entries[0].fault


def test_without_a_graph_of_one_the_launches_of_both_are_compared():
    answers = {"ours": iter([6.0, 2.0] * 3), "eager": iter([3.0, RuntimeError("capture"), 3.0, 3.0])}
    timer = Timer(lambda name: next(answers.get(name.rpartition(".")[2], repeat(1.0))))
    shape = measure(GRAPH, SILU, entries(ours, eager), timer, CEILINGS, "cpu", rounds=3)
    gate = held(shape, budget(against="eager", at_most=1.0))
    assert (gate.verdict, gate.value) == ("missed", 2.0)


def test_slower_than_the_named_baseline_is_missed():
    shape = run(LAUNCH, entries(ours, eager), {"ours": 10.0, "eager": 9.0})
    gate = held(shape, budget(against="eager", at_most=1.06))
    assert (gate.verdict, gate.value) == ("missed", pytest.approx(10 / 9))


def test_without_its_baseline_nothing_is_judged():
    shape = run(LAUNCH, entries(ours), {"ours": 10.0})
    gate = held(shape, budget(against="bare cuBLAS", at_most=1.06))
    assert (gate.verdict, gate.reason) == ("not judged", "bare cuBLAS was not measured")


def test_an_impossible_time_meets_nothing():
    shape = run(LAUNCH, entries(ours, eager), {"ours": 1e-3, "eager": 9.0}, copied=1e9)
    assert held(shape, budget("r", at_least=0.9)).verdict == "inconclusive"


def test_a_kernel_that_failed_is_not_judged():
    shape = run(LAUNCH, entries(broken, eager), {"eager": 9.0})
    gate = held(shape, budget("r", at_least=0.9))
    assert gate.verdict == "not judged"
    assert "out of registers" in gate.reason


def test_where_operations_set_the_pace_the_product_takes_its_turns_too():
    ceilings = Ceilings(
        1.0, 0.1, None, [partial(torch.zeros, 1)], [partial(torch.matmul, torch.ones(1), torch.ones(1))]
    )
    products = iter([1e6, 2e6, 4e6])
    timer = Timer(lambda name: next(products) if name.endswith("matmul") else 10.0)
    shape = measure(LAUNCH, SILU, entries(ours), timer, ceilings, "cpu", rounds=3)
    assert shape.product.rounds == (1e6, 2e6, 4e6)
    assert shape.entries[0].gemm == pytest.approx(shape.flops / 10.0 * 2e6 / Ceilings.MULTIPLIED)
