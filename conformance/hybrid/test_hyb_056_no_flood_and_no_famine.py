"""HYB-056."""

from __future__ import annotations

from collections.abc import Callable

from gaugeblock.conformance.check import check
from gaugeblock.fixtures.targets.lane_bench import LaneBench

FLOOD, PATIENCE = 40, 5


@check(
    "HYB-056",
    feature="lanes",
    bound=f"exact: {FLOOD} patient requests take 1 of 4 places in the GPU lane; an urgent one starts at once; a "
    f"patient one is passed over {PATIENCE} times at most",
    sources=(
        "https://github.com/vllm-project/vllm/pull/45561",
        "https://github.com/vllm-project/vllm/issues/24365",
        "https://github.com/kubernetes-sigs/gateway-api-inference-extension/issues/1861",
    ),
)
def test_hyb_056(record_property: Callable[[str, object], None]) -> None:
    """A flood of patient requests leaves the GPU lane its room, and urgent ones do not starve the patient

    Look at how many places of the GPU lane low priority may have when its own lane is full or below its floor, and at
    the order in which those that wait are let in.
    """
    bench = LaneBench(
        [
            {"name": "gpu", "tier": "gpu", "quality": "fp32", "capacity": 4},
            {"name": "cpu", "tier": "cpu", "quality": "int8", "capacity": 4},
        ]
    )
    low = [bench.ask(f"low-{n}", priority="low", floor="fp32" if n % 2 else None) for n in range(FLOOD)]
    assert len(bench.lanes["cpu"].runs) == 4, "the CPU lane is not full: there is no flood"
    taken = len(bench.lanes["gpu"].runs)
    assert taken == 1, f"a flood of low priority takes {taken} of 4 places in the GPU lane; a quarter is its share"
    high = [bench.ask(f"high-{n}", priority="high") for n in range(3)]
    places = [bench.where(client.rid) for client in high]
    assert places == ["gpu"] * 3, f"urgent requests in a flood of patient ones are in {places}"
    urgent = bench.ask("urgent", priority="high")
    assert bench.where("urgent") is None, "both lanes are full, and an urgent request was begun"
    bench.finish()
    order = [request.rid.rpartition("/")[0] for request in bench.lanes[urgent.served["lane"]].got]
    ahead = order.index("urgent") - 4
    assert ahead == 0, f"{ahead} patient requests were let in while an urgent one waited"
    failed = [client.rid for client in (*low, *high, urgent) if not client.whole]
    assert not failed, f"{len(failed)} requests have no whole answer: {failed[:3]}"

    alone = LaneBench([{"name": "cpu", "tier": "cpu", "quality": "int8", "capacity": 1}], patience=PATIENCE)
    alone.ask("first", priority="high", new=1)
    alone.ask("patient", priority="low", new=1)
    for n in range(FLOOD):
        alone.ask(f"urgent-{n}", priority="high", new=1)
    alone.finish()
    order = [request.rid.rpartition("/")[0] for request in alone.lanes["cpu"].got]
    passed = order.index("patient") - 1
    assert passed <= PATIENCE, f"a patient request was passed over {passed} times; {PATIENCE} are allowed"
    assert passed == PATIENCE, f"it was passed over {passed} times although {FLOOD} urgent ones came: no priority"
    record_property("evidence", f"1 of 4 places, passed over {passed} times")
