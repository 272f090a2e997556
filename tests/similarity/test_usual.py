"""What is usual at a position, and what is held to it."""

import numpy as np
import pytest

from gaugeblock.conformance.hybrid.instruments import seen
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.similarity.calibration import Calibration
from gaugeblock.fixtures.similarity.gates import GATES, judge
from gaugeblock.fixtures.similarity.sequential import Limit
from gaugeblock.fixtures.similarity.summary import summarise
from gaugeblock.fixtures.similarity.usual import FLOOR, each_by_the_others, relative, spread, usual
from gaugeblock.fixtures.watch.reading import Draw, Reading
from gaugeblock.fixtures.watch.rounds import Watcher

NULL = {
    "bf16": [[1 - np.array([0.1, 0.0]), 1 - np.array([0.3])] for _ in range(3)],
    "int8-kv": [[1 - np.array([0.0, 0.0]), 1 - np.array([0.5])]],
}
MEANS = np.array([0.1, 0.0, 0.5])


def test_usual_is_the_coarsest_variants_mean_and_a_quarter_of_all():
    assert spread(NULL) == ["bf16"]
    first, second = usual(NULL)
    assert np.concatenate((first, second)) == pytest.approx(MEANS + FLOOR * MEANS.mean())
    assert usual({"int8-kv": NULL["int8-kv"]}) == []


def test_relative_is_0_where_it_is_as_usual_and_the_end_may_lack():
    usually = usual(NULL)
    assert np.concatenate(relative([1 - far for far in usually], usually)) == pytest.approx([0, 0, 0], abs=1e-12)
    short = relative([np.ones(1), np.zeros(0)], usually)
    assert [row.tolist() for row in short] == [[1.0], []]


def test_a_rounding_is_held_to_the_others():
    rng = np.random.default_rng(0)
    null = {"bf16": [[1 - rng.random(50) * 0.1] for _ in range(4)]}
    rest = np.mean([1 - rounding[0] for rounding in null["bf16"][1:]], axis=0)
    wanted = 1 - (1 - null["bf16"][0][0]) / (rest + FLOOR * rest.mean())
    assert each_by_the_others(null)["bf16"][0][0] == pytest.approx(wanted)
    assert each_by_the_others({"int8-kv": NULL["int8-kv"]}) == {}


def test_equal_roundings_divide_by_nothing():
    null = {"bf16": [[np.ones(200)] for _ in range(3)]}
    assert np.isfinite(relative([np.zeros(200)], usual(null))[0]).all()


def calibrated():
    rng = np.random.default_rng(1)
    wide = np.where(np.arange(300) % 10 == 0, 0.1, 0.005)
    roundings = [[1 - wide * rng.uniform(0.5, 1.5, 300) for _ in range(4)] for _ in range(6)]
    return Calibration({}, {}, {}, {"bf16": roundings}).gate(GATES["bf16"]), roundings


def test_the_gate_holds_the_worst_positions_to_what_is_usual_there():
    gate, roundings = calibrated()
    right = summarise([seen(row) for row in roundings[0]], usual=gate.usual)
    assert judge(right, gate).outcome == "passed"
    wrong = [row.copy() for row in roundings[0]]
    for row in wrong:
        row[1::60] = 0.9  # as low as every tenth position is
    found = judge(summarise([seen(row) for row in wrong], usual=gate.usual), gate)
    assert found.outcome == "failed"
    assert [complaint[:45] for complaint in found.complaints] == [
        "the worst 1% of the positions are " + found.complaints[0][34:45]
    ]
    assert "times as far off as rounding usually is there" in found.reasons
    with pytest.raises(KitError, match=r"usual=gate\.usual"):
        judge(summarise([seen(row) for row in wrong]), gate)
    with pytest.raises(KitError, match="of other prompts"):
        summarise([seen(np.ones(301))] * 4, usual=gate.usual)


def test_what_candidates_leave_open_is_undecided():
    gate, roundings = calibrated()
    bounds = [seen(row - 0.05, row) for row in roundings[0]]
    found = judge(summarise(bounds, usual=gate.usual), gate)
    assert found.outcome == "inconclusive"
    assert any("between" in doubt and "ask for more candidates" in doubt for doubt in found.doubts)


def test_a_watch_takes_overlaps_relative_to_what_is_usual():
    usually = [np.where(np.arange(1000) % 20 == 0, 0.01, 0.5)]
    limits = (Limit(-2.0, 0.002),)

    def measure(draw: Draw) -> Reading:
        return Reading(draw, 0.9, 0.9)  # ten times as far off as usual at every 20th position, a fifth elsewhere

    held, plain = (Watcher(measure, (1000,), limits, usual=given) for given in (usually, ()))
    for _ in range(5):
        assert not plain.round().alarm
        held.round()
    assert held.certain.alarm
