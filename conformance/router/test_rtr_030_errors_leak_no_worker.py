"""RTR-030."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.endings import ending_of_death
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.workers.script import RESET_AT_ONCE


@check(
    "RTR-030",
    feature="proxy",
    bound="exact: no error names a worker's port, in its body or in its headers",
    sources=("https://cwe.mitre.org/data/definitions/209.html",),
)
def test_rtr_030(router_lab: LabFactory) -> None:
    """An error tells the client nothing of the workers' addresses.

    Internal addresses reach whoever can make a request fail. Look at error texts of the HTTP client that are passed on.
    """
    lab = router_lab()
    secrets = [f":{worker.port}" for worker in lab.workers]
    for worker in lab.workers:
        worker.always(RESET_AT_ONCE)
    shown = [_all_of(lab.send("reset").reply)]
    shown.append(ending_of_death(lab)[0].body.decode("utf-8", "replace"))
    for worker in lab.workers:
        worker.kill()
    shown.append(_all_of(lab.send("dead").reply))
    leaks = [text for text in shown if any(secret in text for secret in secrets)]
    assert not leaks, f"{len(leaks)} of {len(shown)} errors name a worker's address: {leaks[0][:400]}"


def _all_of(reply: object) -> str:
    headers, body = getattr(reply, "headers", {}), getattr(reply, "body", b"")
    return f"{dict(headers)} {body.decode('utf-8', 'replace')}"
