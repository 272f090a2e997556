"""HYB-032."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.pretend_devices import PretendDevices

SLACK = 1e-6  # of the link's figures: a least-squares fit in float64


@check(
    "HYB-032",
    feature="placement",
    bound="exact: shapes and bytes are the tensors' own, the edges are the producers and consumers that the model is "
    "written with; the link is fitted to 1e-6 of the latency and bandwidth of the pretended bus",
)
def test_hyb_032(pretend: type[PretendDevices], record_property: Callable[[str, object], None]) -> None:
    """A profile has every tensor that goes from one operator to another, with its bytes

    What a plan moves is an edge. One that is missing (a residual that jumps over a layer) is a transfer that nobody
    reckons with. Look at how a tensor's producer is found, and at views, which move no bytes of their own.
    """
    from gaugeblock.fixtures.targets.pretend_devices import BANDWIDTH, LATENCY, ROWS, WIDTH, Model, model_input

    world = pretend()
    profile = world.profile(Model(world), (model_input(),))
    full = ROWS * WIDTH * 4
    expected = {("<input>", "first"): full, ("blocks.1", "last"): full, ("last", "head"): WIDTH * 4}
    expected["head", "<output>"] = WIDTH * 4
    for block, source in (("blocks.0", "first"), ("blocks.1", "blocks.0")):
        chain = (f"{block}.norm", f"{block}.up", f"{block}.down", block)
        expected |= dict.fromkeys(zip((source, *chain), chain, strict=False), full)
        expected[source, block] = full  # the residual
    edges = {(edge.producer, edge.consumer): edge.bytes for edge in profile.edges}
    missing = sorted(set(expected) - set(edges))
    assert not missing, f"no edge for {missing}, which the model computes with"
    assert edges == expected, f"edges that differ: {dict(edges.items() ^ expected.items())}"
    assert len(profile.edges) == len(edges), "an operator reads one tensor twice"
    for name, operator in profile.by_name.items():
        (call,) = operator.calls
        rows = 1 if name == "head" else ROWS
        inputs = 2 if name in ("blocks.0", "blocks.1") else 1
        assert call.shapes_in == ((rows, WIDTH),) * inputs, f"{name} got {call.shapes_in}"
        assert call.bytes_in == inputs * rows * WIDTH * 4, f"{name} got {call.bytes_in} bytes"
        made = 1 if name in ("head", "last") else ROWS
        assert call.shapes_out == ((made, WIDTH),), f"{name} made {call.shapes_out}"
        assert call.bytes_out == made * WIDTH * 4, f"{name} made {call.bytes_out} bytes"
        kept = WIDTH * WIDTH * 4 if name in ("first", "head") or name.endswith(("up", "down")) else 0
        assert sum(operator.weights.values()) == kept, f"{name} keeps {operator.weights}, {kept} bytes are its weight"
    shared = set(profile.by_name["first"].weights) & set(profile.by_name["head"].weights)
    assert shared == {"first.weight"}, f"first and head share one weight, the profile has {shared or 'none'}"
    for link in (profile.to_device, profile.to_host):
        assert abs(link.latency / LATENCY - 1) <= SLACK, f"a copy's latency is {link.latency:g} s"
        assert abs(link.bandwidth / BANDWIDTH - 1) <= SLACK, f"the bandwidth is {link.bandwidth:g} bytes/s"
    record_property("evidence", f"{len(edges)} edges and {len(profile.operators)} operators, all as written")
