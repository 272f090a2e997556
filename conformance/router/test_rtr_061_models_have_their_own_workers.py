"""RTR-061."""

from __future__ import annotations

from gaugeblock.conformance.check import check
from gaugeblock.conformance.router.labs import LabFactory

REQUESTS = 24
OWN = {"alpha": {"w0", "w1"}, "beta": {"w2"}}


@check(
    "RTR-061",
    feature="models",
    level="extended",
    bound=f"exact: none of {REQUESTS} requests goes to a worker of the other model, each worker of a model gets some",
    sources=("https://github.com/THUDM/slime/pull/2112", "https://github.com/sgl-project/sglang/pull/10244"),
)
def test_rtr_061(router_lab: LabFactory) -> None:
    """Each of two models is served by its own workers, and by all of them.

    Look at whether the model is read before a worker is picked, and at whether a pool is more than its first worker.
    """
    lab = router_lab(needs=("models",), models=("alpha", "alpha", "beta"))
    got: dict[str, list[str]] = {model: [] for model in OWN}
    for number in range(REQUESTS):
        model = ("alpha", "beta", "alpha")[number % 3]
        sent = lab.send(f"turn {number}", model=model, stream=number % 2 == 1)
        sent.reply.expect(200)
        got[model].append(sent.worker)
    for model, workers in got.items():
        astray = [worker for worker in workers if worker not in OWN[model]]
        assert not astray, f"{len(astray)} of {len(workers)} requests for {model} went to a worker of another model"
        idle = OWN[model] - set(workers)
        assert not idle, f"of {len(workers)} requests for {model} none went to {sorted(idle)}, which serve it too"
