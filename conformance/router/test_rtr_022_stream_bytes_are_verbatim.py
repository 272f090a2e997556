"""RTR-022."""

from __future__ import annotations

import pytest

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import Answer

FRAMES = (
    b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"gr\xc3\xbc\xc3\x9fe \xf0\x9f\x98\x80"}}]}\n\n',
    b": a comment is legal\n\n",
    b'id: 7\nevent: message\ndata:  { "choices" : [ ], "usage":{"prompt_tokens":12345678901234567890}, "new":1.0 }\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"data: [DONE] is not the end"}}]}\n\n',
    b"data: [DONE]\n\n",
)


@check(
    "RTR-022",
    feature="proxy",
    bound="exact: the same bytes, wherever the network splits them",
    sources=("https://github.com/vllm-project/aibrix/issues/2653",),
)
@pytest.mark.parametrize("split", [0, 1, 7], ids=["whole", "each-byte", "each-7-bytes"])
def test_rtr_022(router_lab: LabFactory, split: int) -> None:
    """A stream comes back byte for byte, wherever it is split.

    Events were parsed piece by piece: one cut inside a frame, a line or a character was lost, doubled or mended. Look
    at what the router does with half an event.
    """
    lab = router_lab()
    for worker in lab.workers:
        worker.always(Answer(frames=FRAMES, split=split))
    reply = lab.send("verbatim", stream=True).reply.expect(200)
    expected = b"".join(FRAMES)
    at = next((i for i, (a, b) in enumerate(zip(expected, reply.body, strict=False)) if a != b), len(expected))
    assert reply.body == expected, (
        f"the stream's bytes were changed from byte {at} on ({len(expected)} sent, {len(reply.body)} received): "
        f"{expected[at : at + 60]!r} became {reply.body[at : at + 60]!r}"
    )
