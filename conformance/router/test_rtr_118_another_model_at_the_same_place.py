"""RTR-118."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.router import RouterLab

REQUESTS = 8


@check(
    "RTR-118",
    feature="models",
    level="extended",
    bound=f"exact: once it is healthy again, none of {REQUESTS} requests for its old model goes to the worker, and all "
    "for its new one do",
    sources=("https://github.com/BerriAI/litellm/pull/38479", "https://github.com/getainode/ainode/pull/65"),
)
def test_rtr_118(router_lab: LabFactory) -> None:
    """A worker that returns under the same URL with another model serves that one, and the old one no longer.

    An engine answers whatever model it is asked for, so nobody notices. Look at whether names are learnt at the first
    contact alone or at every return.
    """
    lab = router_lab(needs=("models", "readiness"), models=("alpha", "alpha", "beta"), fresh=True)
    changed = lab.worker("w0")
    changed.kill()
    lab.await_readiness(200, healthy=2)
    changed.model = "gamma"
    changed.revive()
    lab.await_readiness(200, healthy=3)
    old = _workers(lab, "alpha")
    astray = old.count("w0")
    assert not astray, f"{astray} of {REQUESTS} requests for alpha went to a worker that is back with another model"
    new = _workers(lab, "gamma")
    assert new == ["w0"] * REQUESTS, f"a worker is back with the model gamma, whose requests were answered by {new}"


def _workers(lab: RouterLab, model: str) -> list[str]:
    """Return who answered, or the status of a refusal."""
    sent = [lab.send(f"turn {number}", model=model) for number in range(REQUESTS)]
    return [one.worker if one.reply.status == 200 else str(one.reply.status) for one in sent]
