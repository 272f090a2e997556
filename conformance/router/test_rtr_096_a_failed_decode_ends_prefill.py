"""RTR-096."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import await_called_off, failing_reply, opening, pair_lab
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE, Answer

FAILURES = {"500": Answer(status=500), "reset": RESET_AT_ONCE}
BOUND = 3.0  # seconds until the client must know


@check(
    "RTR-096",
    feature="pd",
    bound="an error status within 3 s, while prefill is held for ever; prefill called off 3 s later",
    sources=(
        "https://github.com/volcano-sh/kthena/pull/882",
        "https://github.com/sgl-project/sglang/pull/37961",
        "https://github.com/sgl-project/sglang/pull/18701",
    ),
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("failure", list(FAILURES))
def test_rtr_096(router_lab: LabFactory, failure: str, stream: bool) -> None:
    """When decode fails, the client hears of it at once and prefill is called off.

    Prefill computes a prompt whose KV nobody will fetch, and the client waits for it. Look at whether decode's failure
    ends the wait for prefill.
    """
    lab = pair_lab(router_lab)
    gate, both = (
        lab.gate(),
        lab.gate(),
    )  # decode fails once prefill has the request too: else nothing is to be called off
    for worker in lab.prefills:
        worker.always(opening(both, Answer(hold=gate)))
    for worker in lab.decodes:
        worker.always(replace(FAILURES[failure], hold=both))
    failing_reply(lab, BOUND, "fail in decode", f"decode failed ({failure})", stream=stream)
    await_called_off(lab, lab.prefills, "fail in decode", f"decode failed ({failure})")
