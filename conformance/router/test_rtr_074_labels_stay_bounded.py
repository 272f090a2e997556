"""RTR-074."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import CHAT, RouterLab

ROUNDS = 250
KINDS = 4
MARK = "invented"
WARM = 10  # rounds before the first look: every worker and every status class has been seen
GROWTH = ROUNDS // 2


@check(
    "RTR-074",
    feature="metrics",
    level="extended",
    bound=f"exact: no invented name among the metrics after {KINDS * ROUNDS} requests with invented paths, models, "
    f"sessions and tenants. Fewer than {GROWTH} further series: one kind of names, hashed or not, would make {ROUNDS}; "
    "what a router begins to tell of itself meanwhile was 26",
    sources=("https://github.com/volcano-sh/kthena/issues/1378", "https://github.com/BerriAI/litellm/issues/35666"),
)
def test_rtr_074(router_lab: LabFactory) -> None:
    """Clients cannot make the metrics grow: what they invent becomes no label.

    Every value of a label is a series for ever, in the router and in whatever scrapes it. Look at raw paths, and at the
    model's name as the request says it.
    """
    lab = router_lab(needs=("metrics",))
    for number in range(WARM):
        _round(lab, number)
    before = _series(lab)
    for number in range(WARM, WARM + ROUNDS):
        _round(lab, number)
    after = _series(lab)
    named = [line for line in after if MARK in line]
    assert not named, f"{len(named)} series carry names that clients invented, such as {named[0][:160]}"
    assert len(after) < len(before) + GROWTH, (
        f"{KINDS * ROUNDS} requests with invented names made {len(before)} series {len(after)}"
    )


def _round(lab: RouterLab, number: int) -> None:
    """Send one request of each kind; what the router makes of it is another check's."""
    name = f"{MARK}-{number}"
    lab.wire.call("GET", f"/{name}")
    lab.send("hello", path=CHAT, model=name)
    lab.send("hello", session=name, headers={"x-tenant": name, "x-request-id": name})
    lab.wire.call("POST", f"/v1/{name}", b"{}")


def _series(lab: RouterLab) -> list[str]:
    return [line for line in lab.metrics().splitlines() if line and not line.startswith("#")]
