"""RTR-053."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.keys import new_keys
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import largest_share
from gaugeblock.conformance.router.together import spread_of

REQUESTS, LIMIT = 96, 2 / 3


@check(
    "RTR-053",
    feature="bounded-load",
    bound="no worker holds more than 2/3 of 96 requests at once, twice its fair share: factors in use are 1.1 to 2",
    sources=(
        "https://github.com/envoyproxy/gateway/issues/7561",
        "https://github.com/sgl-project/sglang/issues/32195",
    ),
)
def test_rtr_053(router_lab: LabFactory, note: Note) -> None:
    """A hot key overflows to other workers while its own has more than its share, and comes home afterwards.

    All requests of one key queued on one worker, or the key stayed away when it had room again. Look at the bound of
    the load, and at whether an overflow changes anything that lasts.
    """
    lab = router_lab("consistent_hash", needs=("bounded-load",))
    key = new_keys(lab, 1)[0]
    home = lab.send("warm up", session=key).worker
    counts = spread_of(lab, REQUESTS, lambda: lab.send("next turn", session=key))
    note(f"{REQUESTS} concurrent requests of one key: {counts}")
    assert largest_share(counts) <= LIMIT, f"{REQUESTS} concurrent requests of one key queued on one worker: {counts}"
    away = [worker for worker in (lab.send("later", session=key).worker for _ in range(8)) if worker != home]
    assert not away, f"{len(away)} of 8 later requests of the key went elsewhere than home ({home}): {away}"
