"""RTR-104."""

from __future__ import annotations

import random

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.pairs import one_pair, pair_lab

RANKS, SESSIONS, TURNS = 4, 10, 4


@check(
    "RTR-104",
    feature="dp-rank",
    level="extended",
    bound="exact: every turn on the rank of the first; chance keeps a turn in a quarter of the cases",
    sources=(
        "https://github.com/sgl-project/sglang/issues/26066",
        "https://github.com/ai-dynamo/dynamo/pull/4221",
    ),
)
def test_rtr_104(router_lab: LabFactory, note: Note) -> None:
    """The turns of a session stay on one data-parallel rank of the prefill worker.

    Each rank has a prefix cache of its own, and a prefill worker takes the rank from the room: a random room throws the
    session's KV away three times in four. Look at how the room is drawn, or whether the rank is named.
    """
    lab = pair_lab(router_lab, "session", needs=("dp-rank",), prefill=1, decode=1, dp_size=RANKS)
    turns = [session for session in range(SESSIONS) for _ in range(TURNS)]
    random.Random(104).shuffle(turns)
    ranks: dict[int, list[int]] = {}
    for session in turns:
        prefill, _ = one_pair(lab, lab.send(f"turn of {session}", session=f"session-{session}"))
        ranks.setdefault(session, []).append(lab.prefills[0].part.rank(prefill.json()))
    note(f"ranks by session: {ranks}")
    torn = {session: seen for session, seen in ranks.items() if len(set(seen)) > 1}
    assert not torn, f"{len(torn)} of {SESSIONS} sessions were torn over the ranks of their prefill worker: {torn}"
    used = {seen[0] for seen in ranks.values()}
    assert len(used) > 1, f"all {SESSIONS} sessions are on rank {used} of {RANKS}: the other ranks are idle"
