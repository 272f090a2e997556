"""The four gates on similarities that are known."""

from dataclasses import replace

import numpy as np
import pytest

from gaugeblock.conformance.similarity import GATES, compare, judge, known_rows, log_probabilities, summarise, truncated


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return [log_probabilities(rng.normal(size=(60, 40)) * 4) for _ in range(4)]


def test_exact_wants_every_bit(rows):
    assert judge(compare(rows, rows), GATES["exact"]).outcome == "passed"
    other = [row.copy() for row in rows]
    other[2][5, 7] = np.nextafter(other[2][5, 7], 0)
    found = judge(compare(rows, other), GATES["exact"])
    assert found.outcome == "failed"
    assert "prompt 2, position 5" in found.reasons


def test_fp32_allows_rounding_and_no_more(rows):
    assert judge(compare(rows, [row + 4e-4 * (row < -3) for row in rows]), GATES["fp32"]).outcome == "passed"
    assert judge(compare(rows, [row + 4e-3 * (row < -3) for row in rows]), GATES["fp32"]).outcome == "failed"


def test_what_is_not_finite_fails_every_gate(rows):
    other = [row.copy() for row in rows]
    other[1][3] = np.nan
    for gate in GATES.values():
        assert judge(compare(rows, other), replace(gate, tail=0.0 if gate.statistical else None)).outcome == "failed"


def test_a_statistic_needs_its_null(rows):
    found = judge(compare(rows, rows), GATES["int8"])
    assert found.outcome == "inconclusive"
    assert "no calibration" in found.reasons
    assert judge(compare(rows, rows), GATES["int8"].calibrated(0.9)).outcome == "passed"
    assert judge(compare(rows, rows[1:] + rows[:1]), GATES["int8"]).outcome == "failed", "the worst prompt suffices"


def test_candidates_decide_what_they_can(rows):
    def seen(top, other):
        pairs = zip(rows, other, strict=True)
        return summarise([truncated(known_rows(p, top), known_rows(q, top)) for p, q in pairs])

    gate = GATES["bf16"].calibrated(0.9)
    assert judge(seen(1, rows), gate).outcome == "inconclusive"
    assert "ask for more candidates" in judge(seen(1, rows), gate).reasons
    assert judge(seen(40, rows), gate).outcome == "passed"
    assert judge(seen(5, rows[1:] + rows[:1]), gate).outcome == "failed"
    assert judge(seen(5, rows), GATES["exact"]).outcome == "passed"
