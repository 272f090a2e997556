"""RTR-054."""

from __future__ import annotations

import random

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.router.keys import new_keys
from gaugeblock.conformance.router.labs import LabFactory

MODELS = ("one", "two", "three")
SESSIONS, ROUNDS = 8, 3


@check(
    "RTR-054",
    feature="session-affinity",
    level="extended",
    bound="exact: 72 of 72 turns; a pin that is lost each time another model is asked survives with probability 2e-15",
    sources=("https://github.com/smg-project/smg/pull/2576",),
)
def test_rtr_054(router_lab: LabFactory, note: Note) -> None:
    """A session that talks to several models has a home at each.

    Turns of one model lost their worker whenever the session asked another model: agents that mix models recompute
    their history at every change. Look at whether the model is part of the key under which a session is pinned.
    """
    lab = router_lab("session", needs=("models",), workers=6, models=tuple(model for model in MODELS for _ in range(2)))
    serving = {worker.name: worker.model for worker in lab.workers}
    sessions, wrong = new_keys(lab, SESSIONS), []
    seen: dict[tuple[str, str], list[str]] = {}
    for number in range(ROUNDS):
        for session in random.Random(number).sample(sessions, SESSIONS):
            for model in MODELS:
                sent = lab.send("next turn", session=session, model=model)
                sent.reply.expect(200)
                seen.setdefault((session, model), []).append(sent.worker)
                wrong += [sent.worker] if serving[sent.worker] != model else []
    assert not wrong, f"{len(wrong)} turns went to a worker of another model: {wrong}"
    torn = {key: workers for key, workers in seen.items() if len(set(workers)) > 1}
    note(f"{len(seen) - len(torn)} of {len(seen)} pairs of session and model stayed on one worker")
    assert not torn, f"{len(torn)} of {len(seen)} pairs of session and model were torn apart: {torn}"
