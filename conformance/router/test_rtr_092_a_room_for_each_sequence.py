"""RTR-092."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import one_pair, pair_lab
from gaugeblock.fixtures.targets.router import CHAT, Sent, chat
from gaugeblock.fixtures.workers.shapes import MODEL

GENERATE, COMPLETIONS = "/generate", "/v1/completions"
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "chat of 3": (CHAT, 3, {"n": 3}),
    "prompts": (COMPLETIONS, 2, {"prompt": ["one", "two"]}),
    "token ids": (GENERATE, 2, {"input_ids": [[1, 2], [3]]}),
    "texts of 2": (GENERATE, 4, {"text": ["one", "two"], "sampling_params": {"n": 2}}),
}


@check(
    "RTR-092",
    feature="pd",
    level="extended",
    bound="exact: as many distinct rooms as sequences, hosts and ports of the same number, equal on both sides",
    sources=(
        "https://github.com/sgl-project/sglang/pull/24223",
        "https://github.com/sgl-project/sglang/pull/26486",
        "https://github.com/sgl-project/sglang/pull/40297",
    ),
)
@pytest.mark.parametrize("case", list(CASES))
def test_rtr_092(router_lab: LabFactory, case: str) -> None:
    """A batch, or several samples of one prompt, gets a room for each sequence.

    Sequences that share a room wait for each other's KV until a time-out of minutes. Look at what is counted: prompts,
    samples, or their product.
    """
    path, count, fields = CASES[case]
    lab = pair_lab(router_lab, needs=("native-api",) if path == GENERATE else ())
    prompt = chat("several") if path == CHAT else {"model": MODEL}
    before = len(lab.arrivals())
    reply = lab.wire.call("POST", path, json.dumps({**prompt, **fields}).encode()).expect(200)
    prefill, decode = one_pair(lab, Sent(reply, lab.arrivals()[before:]))
    data = prefill.json()
    rooms = data.get("bootstrap_room")
    assert isinstance(rooms, list), f"{count} sequences were sent to {rooms!r}, not to rooms of their own"
    assert len(set(rooms)) == len(rooms) == count, f"{count} sequences were sent to the rooms {rooms}"
    for name in ("bootstrap_host", "bootstrap_port"):
        value = data.get(name)
        assert isinstance(value, list), f"{name} must be a list beside a list of rooms, got {value!r}"
        assert len(value) == count, f"{name} has {len(value)} entries for {count} sequences"
    assert decode.rooms == prefill.rooms, f"prefill delivers to {prefill.rooms}, decode waits in {decode.rooms}"
