"""RTR-091."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import one_pair, pair_lab
from gaugeblock.fixtures.targets.router import CHAT, Sent

FIELDS = ("bootstrap_host", "bootstrap_port", "bootstrap_room")
HUGE = 2_000_000  # bytes


@check(
    "RTR-091",
    feature="pd",
    level="extended",
    bound="exact: the same bytes but for the three fields at the beginning or the end of the object",
    sources=(
        "https://github.com/sgl-project/sglang/pull/24207",
        "https://github.com/vllm-project/router/issues/161",
    ),
)
@pytest.mark.parametrize("form", ["odd", "huge", "chunked"])
def test_rtr_091(router_lab: LabFactory, form: str) -> None:
    """Prefill and decode get the client's body byte for byte, and three more fields.

    The one place where a router must write into a body became a place where it rewrites it: unknown fields vanish,
    large integers change, and the two halves may compute different prompts. Look at how the fields are put in.
    """
    lab = pair_lab(router_lab)
    mark = lab.mark()
    filler = b"x" * (HUGE if form == "huge" else 10)
    body = (
        b' { "messages" : [\t{"role":"user", "content":"\\u00fcber \xc3\xbcber '
        + filler
        + mark.encode()
        + b'"}\n],\r\n'
        b'  "model":"scripted", "temperature": 1.0e0, "seed":9007199254740993 , "n": 1,'
        b' "zz": {"a":[ 123456789012345678901234567890 , {"}": "}" }]}  } \n'
    )
    sent = body if form != "chunked" else _pieces(body)
    reply = lab.wire.call("POST", CHAT, sent).expect(200)
    prefill, decode = one_pair(lab, Sent(reply, lab.arrivals(mark)))
    for name, arrived in (("prefill", prefill.body), ("decode", decode.body)):
        data = json.loads(arrived)
        missing = [field for field in FIELDS if field not in data]
        assert not missing, f"the {name} worker was not told {missing}"
        assert _is_spliced(body, arrived), (
            f"the {name} worker's bytes were changed: sent {body[-150:]!r}, arrived {arrived[-250:]!r}"
        )
    assert prefill.body == decode.body, (
        f"the halves got different bodies: prefill {prefill.body[-200:]!r}, decode {decode.body[-200:]!r}"
    )


def _is_spliced(body: bytes, arrived: bytes) -> bool:
    """Whether ``arrived`` is ``body`` with something put in behind its first or before its last brace."""
    start, end = body.index(b"{") + 1, body.rindex(b"}")
    return (arrived.startswith(body[:end]) and arrived.endswith(body[end:])) or (
        arrived.startswith(body[:start]) and arrived.endswith(body[start:])
    )


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 37):
        yield body[start : start + 37]
