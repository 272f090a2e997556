"""Limits: what parses, what is refused with what advice, and what is met."""

from __future__ import annotations

import math

import pytest

from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.load.slo import LATENCIES, RATES, STATISTICS, UNITS, judge_all, parse_slo

GOOD = {
    "ttft.p95<=200ms": ("ttft.p95", "<=", 0.2),
    " e2e.p99 <= 1.5 s ": ("e2e.p99", "<=", 1.5),
    "tpot.mean<=.5ms": ("tpot.mean", "<=", 0.0005),
    "error_rate<=0": ("error_rate", "<=", 0.0),
    "rps>=10": ("rps", ">=", 10.0),
    "output_tokens_per_s>=300": ("output_tokens_per_s", ">=", 300.0),
}
BAD = {
    "": "is no limit",
    "fast please": "is no limit",
    "ttft.p95<=200ms and more": "is no limit",
    "ttft<=200ms": "needs a statistic",
    "ttft.p94<=200ms": "no statistic 'p94'",
    "ttft.p95<=200": "needs a unit",
    "ttft.p95<=200us": "no unit 'us'",
    "ttft.p95>=200ms": "bounded by <=",
    "ttft.p95<200ms": "bounded by <=",
    "itl.p95<=2ms": "no metric 'itl'",
    "rps<=10": "bounded by >=",
    "rps>=10s": "has no unit",
    "rps.mean>=10": "has no statistic",
    "error_rate<=5": "a share from 0 to 1",
    "error_rate<=5%": "has no unit",
    "error_rate>=0": "bounded by <=",
    "ttft.p95<=-1ms": "is no limit",
    "ttft.p95<=nan ms": "is no limit",
}


@pytest.mark.parametrize(("text", "expected"), GOOD.items())
def test_good_limits(text: str, expected: tuple[str, str, float]) -> None:
    slo = parse_slo(text)
    assert (slo.key, slo.operator) == expected[:2]
    assert slo.limit == pytest.approx(expected[2])
    assert slo.text == "".join(text.split())


@pytest.mark.parametrize(("text", "why"), BAD.items())
def test_bad_limits_say_why_and_list_what_is_legal(text: str, why: str) -> None:
    with pytest.raises(KitError) as caught:
        parse_slo(text)
    message = str(caught.value)
    assert why in message
    assert all(name in message for name in (*LATENCIES, *STATISTICS, *UNITS, *RATES, "error_rate"))


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("ttft.p95<=200ms", 0.2, True),
        ("ttft.p95<=200ms", 0.2001, False),
        ("rps>=10", 10.0, True),
        ("rps>=10", 9.99, False),
        ("error_rate<=0", 0.0, True),
        ("error_rate<=0", 0.01, False),
    ],
)
def test_limits_include_their_value(text: str, value: float, met: bool) -> None:
    slo = parse_slo(text)
    (judged,) = judge_all((slo,), {slo.key: value})
    assert judged.met is met
    assert judged.measured == value


def test_what_was_not_measured_misses_its_limit() -> None:
    latency, rate = judge_all((parse_slo("tpot.p50<=1s"), parse_slo("rps>=1")), {})
    assert not latency.met
    assert math.isinf(latency.measured)
    assert (rate.met, rate.measured) == (False, 0.0)
