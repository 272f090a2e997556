"""RTR-103."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of_death
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import halves, pair_lab
from gaugeblock.fixtures.workers.script import End


@check(
    "RTR-103",
    feature="pd",
    bound="exact: an error event, and one generation on each side",
    sources=(
        "https://github.com/open-webui/open-webui/issues/29628",
        "https://github.com/radixark/miles/issues/1334",
    ),
)
@pytest.mark.parametrize("end", [End.RESET, End.TRUNCATE], ids=["reset", "truncated"])
def test_rtr_103(router_lab: LabFactory, end: End) -> None:
    """A decode worker that dies in the middle of a stream ends it with an error event, not with another generation.

    The client took half an answer for a whole one. Look at who watches decode's stream once the head is out, and how a
    stream without ``[DONE]`` is ended.
    """
    lab = pair_lab(router_lab)
    ending, mark = ending_of_death(lab, *lab.decodes, end=end)
    assert not ending.clean, f"decode died midway ({end}), yet the stream ended cleanly: {ending.shown}"
    assert ending.error, f"decode died midway ({end}) and no error event told the client: {ending.shown}"
    prefill, decode = halves(lab, lab.arrivals(mark))
    assert (len(prefill), len(decode)) == (1, 1), (
        f"a stream that broke midway was generated again: {len(prefill)} prefills, {len(decode)} decodes"
    )
