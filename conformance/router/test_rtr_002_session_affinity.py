"""RTR-002."""

from __future__ import annotations

import random

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory

SESSIONS, TURNS = 12, 4


@check(
    "RTR-002",
    feature="session-affinity",
    bound="exact: 48 of 48; all 12 sessions on one of 3 workers has probability 6e-6 under any fair placement",
    sources=(
        "https://github.com/llm-d/llm-d-router/issues/1541",
        "https://github.com/smg-project/smg/issues/2576",
    ),
)
def test_rtr_002(router_lab: LabFactory, note: Note) -> None:
    """A session stays on one worker, and sessions spread over the workers.

    Turns of one session went to several workers: each pays for the whole history again. The order is shuffled, since 12
    sessions in turn look sticky to a round robin over 3 workers. Look at which header names the session.
    """
    lab = router_lab("session")
    turns = [f"session-{lab.mark()}-{number}" for number in range(SESSIONS)] * TURNS
    random.Random(3).shuffle(turns)
    seen: dict[str, list[str]] = {}
    for session in turns:
        seen.setdefault(session, []).append(lab.send("next turn", session=session).worker)
    torn = {session: workers for session, workers in seen.items() if len(set(workers)) > 1}
    kept = sum(max(workers.count(w) for w in workers) for workers in seen.values())
    assert not torn, f"{len(torn)} of {SESSIONS} sessions were torn apart ({kept} of {len(turns)} turns stayed): {torn}"
    homes = {workers[0] for workers in seen.values()}
    note(f"{kept} of {len(turns)} turns stayed; homes: {sorted(homes)}")
    assert len(homes) > 1, f"all {SESSIONS} sessions live on {homes}: the other workers are idle"
