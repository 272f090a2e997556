"""RTR-003."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory


@check(
    "RTR-003",
    feature="session-affinity",
    bound="exact: every turn is answered, and all turns after the death share one living worker",
    sources=("https://github.com/ai-dynamo/dynamo/issues/13100", "https://github.com/ai-dynamo/dynamo/issues/11646"),
)
def test_rtr_003(router_lab: LabFactory) -> None:
    """A session moves off a dead worker, once.

    Its turns failed although healthy workers were idle, or it found no new home. Look at whether the pin is dropped or
    overridden when its worker cannot be reached, and whether the retry leaves the session's worker out.
    """
    lab = router_lab("session")
    session = f"session-{lab.mark()}"
    home = lab.send("first turn", session=session).worker
    lab.worker(home).kill()
    turns = [lab.send("another turn", session=session) for _ in range(4)]
    failed = [turn.reply.shown for turn in turns if turn.reply.status != 200]
    assert not failed, (
        f"{len(failed)} of 4 turns of a session failed after its worker died, with 2 healthy workers idle: {failed[0]}"
    )
    homes = [turn.worker for turn in turns]
    assert len(set(homes)) == 1, f"after the death of {home} the session wanders: {homes}"
