"""The verdict on a ratio, and the shipped budgets."""

import pytest

from gaugeblock.conformance.bench.budgets import METRICS, Term, judge, known_cards, load_budgets
from gaugeblock.conformance.bench.workloads import WORKLOADS
from gaugeblock.kernels.contract import load_contracts

R = Term("r", at_least=0.9)
TIMES = Term("times", at_most=1.1, against="eager")
INTERPRETER = "Triton's interpreter"


@pytest.mark.parametrize(
    ("term", "ratios", "verdict"),
    [
        (R, [0.95, 0.951, 0.949], "met"),
        (R, [0.85, 0.851, 0.849], "missed"),
        (R, [0.9], "met"),
        (TIMES, [1.0, 1.01, 0.99], "met"),
        (TIMES, [1.2, 1.21, 1.19], "missed"),
        (TIMES, [1.1], "met"),
    ],
)
def test_a_quiet_run_is_judged_by_its_median(term, ratios, verdict):
    judged = judge(term, 0.03, ratios)
    assert judged.verdict == verdict
    assert judged.value == sorted(ratios)[len(ratios) // 2]


def test_a_run_noisier_than_its_budget_is_never_met():
    judged = judge(R, 0.03, [0.92, 1.0, 0.96])
    assert judged.verdict == "inconclusive"
    assert judged.reason == "8.3% between rounds, 3.0% allowed"


def test_noise_does_not_excuse_what_misses_in_every_round():
    assert judge(R, 0.03, [0.5, 0.6, 0.55]).verdict == "missed"


def test_noise_that_straddles_the_gate_is_inconclusive():
    assert judge(TIMES, 0.05, [1.0, 1.3, 1.2]).verdict == "inconclusive"


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="nothing was measured"):
        judge(R, 0.03, [])


def test_terms_read_as_they_are_meant():
    assert str(R) == "R ≥ 0.9"
    assert str(TIMES) == "× ≤ 1.1 of eager"


def test_a_card_without_budgets_has_none():
    assert load_budgets("NVIDIA Nothing") == {}


@pytest.mark.parametrize("card", [card for card in known_cards() if card != INTERPRETER])
def test_every_budget_of_a_card_is_for_a_timed_shape(card):
    names = {workload.name for workload in WORKLOADS}
    for name, budget in load_budgets(card).items():
        assert name in names
        assert budget.noise > 0
        assert budget.source


def test_every_timed_shape_has_a_budget_on_the_h100():
    assert set(load_budgets("NVIDIA H100 80GB HBM3")) == {workload.name for workload in WORKLOADS}


def test_every_op_has_a_budget_of_bytes():
    assert set(load_budgets(INTERPRETER)) == set(load_contracts())


@pytest.mark.parametrize("card", known_cards())
def test_a_goal_is_no_weaker_than_its_gate(card):
    for name, budget in load_budgets(card).items():
        gate, goal = budget.gate, budget.goal
        assert gate.metric in METRICS, name
        assert (gate.at_least is None) != (gate.at_most is None), name
        if goal is None or (goal.metric, goal.against) != (gate.metric, gate.against):
            continue
        if gate.at_least is not None:
            assert goal.at_least >= gate.at_least, name
        else:
            assert goal.at_most <= gate.at_most, name
