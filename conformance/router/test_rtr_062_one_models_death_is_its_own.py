"""RTR-062."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab

REQUESTS = 6


@check(
    "RTR-062",
    feature="models",
    level="extended",
    bound=f"exact, {REQUESTS} requests a model each time: all served while one of its workers lives, refused and never "
    "sent elsewhere once none does; its readiness turns 503 within 10 s and the other model's stays 200",
    sources=("https://github.com/THUDM/slime/pull/2112", "https://github.com/vllm-project/aibrix/issues/781"),
)
def test_rtr_062(router_lab: LabFactory) -> None:
    """When the workers of one model die, its requests fail over, then fail; those of the other model go on.

    Look at whether a pool has more than one worker to go to, at where requests go when it has none, and, if readiness
    can be asked for a model, at whose workers it looks at.
    """
    lab = router_lab(needs=("models", "retries", "readiness"), models=("alpha", "alpha", "beta"), fresh=True)
    lab.worker("w0").kill()
    failed = [status for status in _statuses(lab, "alpha") if status != 200]
    assert not failed, (
        f"{len(failed)} of {REQUESTS} requests for a model failed after one of its two workers died: {failed}"
    )
    lab.worker("w1").kill()
    refused = _statuses(lab, "alpha")
    lab.await_readiness(200, healthy=1)
    refused += _statuses(lab, "alpha")  # now that the router knows
    assert not lab.worker("w2").requests, "requests for a model without living workers went to another model's worker"
    assert all(status >= 400 for status in refused), f"a model without living workers was answered with {refused}"
    good = _statuses(lab, "beta")
    assert good == [200] * REQUESTS, f"one model's workers are dead, and the other model's requests got {good}"
    if "model-readiness" in lab.launcher.features:
        _compare_readiness(lab)


def _statuses(lab: RouterLab, model: str) -> list[int]:
    return [lab.send(f"turn {number}", model=model).reply.status for number in range(REQUESTS)]


def _compare_readiness(lab: RouterLab) -> None:
    states = {model: lab.wire.call("GET", f"/readiness?model={model}").status for model in ("alpha", "beta")}
    if states != {"alpha": 503, "beta": 200}:
        raise TargetFault(f"readiness by model is {states}, though only beta has a living worker")
