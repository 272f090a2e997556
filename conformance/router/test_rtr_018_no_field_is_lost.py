"""RTR-018."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

EXTRA: dict[str, Any] = {
    "seed": 9007199254740993,  # 2**53 + 1: a float cannot hold it
    "custom_field": {"big": 18446744073709551615, "list": [1, 2.5, None, True, "ünï"]},
    "logit_bias": {"12": -100},
    "temperature": 0.1,
    "sampling_params": {"temperature": 0, "custom_rule": {"deep": [1]}, "min_new_tokens": 0},
}


@check(
    "RTR-018",
    feature="proxy",
    bound="exact: every field arrives with its value; numbers are compared as decimals, further fields are allowed",
    sources=("https://github.com/vllm-project/router/issues/161",),
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/generate"])
def test_rtr_018(router_lab: LabFactory, path: str) -> None:
    """Every field of a request reaches the worker, known to the router or not.

    The router parsed the request into its own types and wrote those: fields of newer engines vanish, large integers
    change, an explicit zero becomes a default. Look at what is forwarded: the bytes, or a rewritten copy.
    """
    lab = router_lab(needs=("native-api",) if path == "/generate" else ())
    sent = lab.send("all of it", path=path, **EXTRA)
    sent.reply.expect(200)
    arrived = json.loads(sent.arrivals[-1].body, parse_float=Decimal)
    expected = json.loads(json.dumps(EXTRA), parse_float=Decimal)
    wrong = [f"{name} became {arrived.get(name, 'nothing')!r}" for name in EXTRA if arrived.get(name) != expected[name]]
    assert not wrong, f"{path}: fields changed on their way to the worker: {'; '.join(wrong)}"
