"""RTR-069."""

from __future__ import annotations

import math

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router_words import Canary, Rule

SESSIONS = 400
PERCENT = 25.0
SIGMAS = 5.0
SIGMA = math.sqrt(SESSIONS * PERCENT / 100 * (1 - PERCENT / 100))


@check(
    "RTR-069",
    feature="experiments",
    level="extended",
    bound=f"{SIGMAS:g} standard deviations of a binomial of {SESSIONS} at {PERCENT:g}%: a fair draw misses once in 10⁶",
    sources=("https://github.com/api7/aisix/issues/197", "https://github.com/infiniflow/ragflow/pull/15763"),
)
def test_rtr_069(router_lab: LabFactory) -> None:
    """A canary gets the share of sessions that was asked for.

    Look at a share that is taken of the variants' sum instead of 100, and at a hash that is not even.
    """
    lab = router_lab(
        needs=("experiments",),
        workers=2,
        pools=("main", "next"),
        rules=(Rule("rest", "main"),),
        experiments=(Canary("canary", "next", PERCENT),),
    )
    for number in range(SESSIONS):
        lab.send("hello", session=f"share-{number}").reply.expect(200)
    got, due = len(lab.worker("w1").requests), SESSIONS * PERCENT / 100
    assert abs(got - due) <= SIGMAS * SIGMA, (
        f"a canary of {PERCENT:g}% got {got} of {SESSIONS} sessions; {due:g} ± {SIGMAS * SIGMA:.0f} were due"
    )
