"""Scenarios: the notation, and what would crash or mislead the load generator."""

from __future__ import annotations

import pytest

from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.load.scenario import Scenario


@pytest.mark.parametrize("text", ["D(100,20)", "D( 100, 20 )", "N(480,240)/(300,150)", "U(50,100)/(200,250)"])
def test_legal_notation(text: str) -> None:
    assert Scenario(text).traffic == "".join(text.split())


@pytest.mark.parametrize(
    "text", ["", "D(100)", "D(100,20", "D(-1,20)", "E(64)", "U(50,100)", "dataset", "D(100,20);rm"]
)
def test_illegal_notation_shows_the_legal_one(text: str) -> None:
    with pytest.raises(KitError, match=r"D\(INPUT,OUTPUT\)"):
        Scenario(text)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"traffic": "D(100,1)"}, "at least 2 output tokens"),
        ({"traffic": "D(100,20)", "concurrency": 0}, "at least 1"),
        ({"traffic": "D(100,20)", "max_minutes": 0}, "at least 1"),
        ({"traffic": "D(100,20)", "concurrency": 16, "max_requests": 8}, "--max-requests"),
    ],
)
def test_runs_that_cannot_work_are_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(KitError, match=why):
        Scenario(**fields)  # type: ignore[arg-type] # the cases mix types


def test_warm_leaves_out_the_first_wave_and_cold_does_not() -> None:
    assert Scenario("D(100,20)", 16, 200).warmup_ratio == pytest.approx(16 / 200)
    assert Scenario("D(100,20)", 16, 16).warmup_ratio == 0.5
    assert Scenario("D(100,20)", 16, 200, cache="cold").warmup_ratio == 0.0
