"""RTR-090."""

from __future__ import annotations

from collections import Counter

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import halves, pair_lab
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE, Arrival

REQUESTS, RETRIED = 200, 2


@check(
    "RTR-090",
    feature="pd",
    bound="exact; two of 210 fair rooms of 63 bits are equal once in 10^14 runs",
    sources=(
        "https://github.com/sgl-project/sglang/issues/40125",
        "https://github.com/sgl-project/sglang/pull/7096",
    ),
)
def test_rtr_090(router_lab: LabFactory) -> None:
    """Both halves of a request get one room, and no two requests or attempts share a room.

    The room is the key by which KV finds its way: two requests in one room get each other's KV, or crash the engine's
    scheduler. Look at where the number is drawn, from how many bits, and whether a retry draws anew.
    """
    lab = pair_lab(router_lab)
    for number in range(REQUESTS):
        lab.send(f"request {number}").reply.expect(200)
    if "retries" in lab.launcher.features:
        for number in range(RETRIED):
            lab.prefills[number % 2].once(RESET_AT_ONCE)
            lab.send(f"retried {number}", stream=number % 2 == 0)
    prefill, decode = halves(lab, lab.arrivals())
    assert len(decode) >= REQUESTS, f"{len(decode)} generations at decode workers for {REQUESTS} requests"
    _check_rooms(lab, prefill)
    lonely = {room for arrival in decode for room in arrival.rooms} - {r for a in prefill for r in a.rooms}
    assert not lonely, f"decode waits in {len(lonely)} rooms that no prefill worker was sent to: {sorted(lonely)[:3]}"
    for side, arrivals in (("prefill", prefill), ("decode", decode)):
        # The same bytes at the same worker again are one attempt, on another connection: that is RTR-033's matter.
        attempts = {(room, arrival.worker, arrival.body) for arrival in arrivals for room in arrival.rooms}
        counts = Counter(room for room, _, _ in attempts)
        shared = {room: count for room, count in counts.most_common(3) if count > 1}
        assert not shared, f"on the {side} side rooms were used more than once: {shared}"


def _check_rooms(lab: RouterLab, prefill: list[Arrival]) -> None:
    places = {w.name: (w.url.removeprefix("http://").rpartition(":")[0], w.part.bootstrap_port) for w in lab.prefills}
    for arrival in prefill:
        body = arrival.json()
        rooms = arrival.rooms
        assert len(rooms) == 1, f"a request for one sequence names the rooms {body.get('bootstrap_room')!r}"
        assert 0 <= rooms[0] < 1 << 63, f"the room {rooms[0]} does not fit into 63 bits"
        host, port = body.get("bootstrap_host"), body.get("bootstrap_port")
        place = places[arrival.worker]
        assert (host, port) == place, f"{arrival.worker} is introduced as {host}:{port}, it is {place[0]}:{place[1]}"
