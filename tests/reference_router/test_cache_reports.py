"""Predicted against actual cached tokens: how reports are found, and when a cache counts as lost."""

from __future__ import annotations

import json

import pytest

from gaugeblock.reference.router.cache_reports import CacheReports, read_report
from gaugeblock.reference.router.policies.base import Decision, RequestView

USAGE = {"prompt_tokens": 100, "total_tokens": 104, "prompt_tokens_details": {"cached_tokens": 80}}
META = {"id": "x", "prompt_tokens": 100, "completion_tokens": 4, "cached_tokens": 80}


@pytest.mark.parametrize(
    ("tail", "report"),
    [
        (json.dumps({"usage": USAGE}).encode(), (80, 100)),
        (json.dumps({"text": "hi", "meta_info": META}, separators=(",", ":")).encode(), (80, 100)),
        (b"data: " + json.dumps({"usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n", (80, 100)),
        (json.dumps({"usage": {**USAGE, "prompt_tokens_details": None}}).encode(), None),
        (json.dumps({"text": json.dumps(META)}).encode(), None),
        (b'{"prompt_tokens": 100, "cached_tokens": null}', None),
        (b'{"prompt_tokens": 0, "cached_tokens": 0}', None),
        (b"", None),
    ],
)
def test_reports_are_found_by_their_names(tail: bytes, report: tuple[int, int] | None) -> None:
    assert read_report(tail) == report


def reports(window: int = 4) -> tuple[CacheReports, list[str]]:
    forgotten: list[str] = []
    return CacheReports(window, 1 << 16, forgotten.append), forgotten


def answer(cached: int, prompt: int = 1000) -> bytes:
    return json.dumps({"prompt_tokens": prompt, "cached_tokens": cached}).encode()


def learn(made: CacheReports, number: int, cached: int, matched: int = 900) -> None:
    made.learn(
        RequestView(prompt=b"%04d" % number * 250), Decision("w", "cache_aware", "prefix", matched), answer(cached)
    )


def test_totals_are_kept_by_worker() -> None:
    made, _ = reports()
    learn(made, 1, 890)
    learn(made, 2, 0, matched=0)
    assert (made.predicted, made.cached) == ({"w": 900}, {"w": 890})


def test_a_lost_cache_is_forgotten_once() -> None:
    made, forgotten = reports()
    for number in range(4):
        learn(made, number, 0)
    assert forgotten == ["w"]
    assert made.lost == 1


def test_one_prompt_sent_by_many_at_once_is_no_sign() -> None:
    made, forgotten = reports()
    for _ in range(10):
        learn(made, 7, 0)
    assert forgotten == []


def test_some_misses_among_hits_are_no_sign() -> None:
    made, forgotten = reports()
    for number in range(20):
        learn(made, number, 0 if number % 2 else 900)
    assert forgotten == []


def test_small_predictions_and_cut_prompts_are_left_out() -> None:
    made, forgotten = reports()
    for number in range(8):
        learn(made, number, 0, matched=50)
        made.learn(RequestView(prompt=b"%d" % number * (1 << 16)), Decision("w", "p", "prefix", 900), answer(0))
    assert forgotten == []


def test_a_window_of_nothing_never_forgets() -> None:
    made, forgotten = reports(0)
    for number in range(20):
        learn(made, number, 0)
    assert forgotten == []
