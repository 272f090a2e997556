"""RTR-121."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.targets.router import RouterLab


@check(
    "RTR-121",
    feature="tier-receipts",
    level="extended",
    bound="exact: the named tier is that of the worker that answered, on plain answers, streams and stand-ins",
    sources=(
        "https://github.com/BerriAI/litellm/issues/31722",
        "https://github.com/BerriAI/litellm/pull/25712",
    ),
)
def test_rtr_121(router_lab: LabFactory) -> None:
    """An answer names the tier of the worker that served it, where there are several

    Also when it is the one that was meant: a header that is there only sometimes cannot be counted by. Look at streams,
    and at whether the name is that of the first choice.
    """
    lab = router_lab(needs=("tier-receipts", "cpu-fallback", "readiness"), workers=2, tiers=("gpu", "cpu"), fresh=True)
    for stream in (False, True):
        _compare(lab, stream, 0, "while both live")
    lab.workers[0].kill()
    for stream in (False, True):
        _compare(lab, stream, 1, "while the GPU worker is dead")


def _compare(lab: RouterLab, stream: bool, number: int, when: str) -> None:
    name = lab.launcher.tier_receipt_header
    assert name is not None
    sent = lab.send("who serves", stream=stream)
    served = lab.config.tiers[lab.workers.index(lab.worker(sent.worker))]
    assert served == lab.config.tiers[number], f"{when} the {served} worker answered: nothing was checked"
    named = sent.reply.expect(200).headers.get(name)
    how = "a stream" if stream else "a plain answer"
    assert named == served, f"{when} {name} names {named} on {how}, and the {served} worker answered"
