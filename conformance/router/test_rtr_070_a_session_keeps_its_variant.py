"""RTR-070."""

from __future__ import annotations

from random import Random

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router_words import Canary, Rule

SESSIONS = 24
TURNS = 5


@check(
    "RTR-070",
    feature="experiments",
    level="extended",
    bound=f"exact: all {TURNS} turns of each of {SESSIONS} sessions in one pool; both pools get sessions, which a fair "
    "draw of 50% misses once in 8 million runs",
    sources=(
        "https://github.com/spring-cloud/spring-cloud-gateway/issues/3117",
        "https://github.com/api7/aisix/pull/687",
    ),
)
def test_rtr_070(router_lab: LabFactory) -> None:
    """A session stays on one side of an A/B split.

    Its cache would be cold at every change, and neither side could be judged by its sessions. Look at whether the draw
    is made anew for each request.
    """
    lab = router_lab(
        needs=("experiments",),
        workers=4,
        pools=("main", "main", "next", "next"),
        rules=(Rule("rest", "main"),),
        experiments=(Canary("split", "next", 50.0),),
    )
    turns = [f"split-{number}" for number in range(SESSIONS)] * TURNS
    Random(70).shuffle(turns)  # a fixed order can look sticky by chance of the counting
    sides: dict[str, set[str]] = {}
    for session in turns:
        sent = lab.send("hello", session=session)
        sent.reply.expect(200)
        sides.setdefault(session, set()).add(lab.config.pools[lab.workers.index(lab.worker(sent.worker))])
    torn = [session for session, pools in sides.items() if len(pools) > 1]
    assert not torn, f"{len(torn)} of {SESSIONS} sessions changed sides within {TURNS} turns"
    got = set.union(*sides.values())
    assert got == {"main", "next"}, f"a split of 50% sent all of {SESSIONS} sessions to {got}"
