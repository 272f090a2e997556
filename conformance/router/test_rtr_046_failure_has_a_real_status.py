"""RTR-046."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE, Answer


@check(
    "RTR-046",
    feature="proxy",
    bound="exact: a status of 400 or more when no worker has answered, the worker's own when one has",
    sources=("https://github.com/sgl-project/sglang/issues/28175",),
)
@pytest.mark.parametrize("failure", ["reset", "500", "400"])
def test_rtr_046(router_lab: LabFactory, failure: str) -> None:
    """A stream that fails before its first byte has the status of an error.

    The client was told 200 and found the error inside the stream: no library raises, no retry is made. Look at whether
    the head of a stream is sent before the worker's own has come.
    """
    lab = router_lab()
    for worker in lab.workers:
        worker.always(RESET_AT_ONCE if failure == "reset" else Answer(status=int(failure)))
    reply = lab.send("fail early", stream=True).reply
    expected = "an error" if failure == "reset" else failure
    right = reply.status >= 500 if failure == "reset" else reply.status == int(failure)
    assert right, (
        f"a stream that failed before its first byte ({failure}) must have status {expected}, got {reply.shown}"
    )
