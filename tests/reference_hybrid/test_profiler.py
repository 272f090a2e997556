"""The operator profiler on modules that are not the engine's."""

import dataclasses

import pytest
import torch
from torch import nn

from gaugeblock.fixtures.targets.placement_problems import chain_edges, profile_of
from gaugeblock.fixtures.targets.pretend_devices import Model, PretendDevices, model_input
from gaugeblock.reference.hybrid.links import BOUNDLESS, fit_link
from gaugeblock.reference.hybrid.placement import PLACES, PlacementError
from gaugeblock.reference.hybrid.profile import Link, Profile, Timing
from gaugeblock.reference.hybrid.profiler import on_device, profile

PRETEND = {"host": "cpu", "device": "cpu"}


def quick(module, inputs):
    return profile(module, inputs, PRETEND, warmup=0, repeats=1)


def edges(found):
    return {(edge.producer, edge.consumer): edge.bytes for edge in found.edges}


def test_a_file_gives_the_profile_back(tmp_path):
    found = PretendDevices().profile(Model(PretendDevices()), (model_input(),))
    found.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == found


@pytest.mark.parametrize(
    ("text", "message"), [('{"schema_version": 0}', "schema_version 0"), ('{"schema_version": 3}', "fields missing")]
)
def test_a_file_that_holds_no_profile_is_refused(tmp_path, text, message):
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(PlacementError, match=message):
        Profile.load(path)


def test_attention_that_a_container_computes_is_an_operator_of_its_own():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(1, 2, 0, 3)
            return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))

    found = quick(nn.Sequential(Attention()), (torch.randn(5, 8),))
    assert [(operator.name, operator.own) for operator in found.operators] == [
        ("0", True),
        ("0.qkv", False),
        ("0.out", False),
    ]
    assert edges(found) == {
        ("<input>", "0.qkv"): 160,
        ("0.qkv", "0"): 480,  # three views of one tensor
        ("0", "0.out"): 160,
        ("0.out", "<output>"): 160,
    }


def test_a_container_that_computes_nothing_is_overhead():
    found = quick(nn.Sequential(nn.Sequential(nn.Linear(4, 4))), (torch.randn(2, 4),))
    assert list(found.by_name) == ["0.0"]
    assert found.overhead["host"] > 0


def test_a_module_that_is_called_twice_has_two_calls():
    shared = nn.ReLU()
    found = quick(nn.Sequential(nn.Linear(4, 8), shared, nn.Linear(8, 2), shared), (torch.randn(3, 4),))
    assert [call.shapes_in for call in found.by_name["1"].calls] == [((3, 8),), ((3, 2),)]
    assert found.by_name["1"].seconds("host") == sum(call.seconds["host"].median for call in found.by_name["1"].calls)


def test_a_result_in_place_has_a_new_producer():
    found = quick(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)), (torch.randn(3, 4),))
    assert list(edges(found)) == [("<input>", "0"), ("0", "1"), ("1", "2"), ("2", "<output>")]


def test_a_cache_that_outlives_the_pass_is_kept_by_its_operator():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.pages = [torch.zeros(16, 4)]  # not a buffer

        def forward(self, x):
            self.pages[0][:2] = x
            return self.pages[0][:4].sum(0)

    found = quick(nn.Sequential(Cached()), (torch.randn(2, 4),))
    assert list(found.by_name["0"].weights.values()) == [256]
    assert [edge.producer for edge in found.edges] == ["<input>", "0"]


def test_parameters_that_share_a_storage_are_told_apart():
    whole = torch.randn(2, 4, 4)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    for layer, part in zip(model, whole, strict=True):
        layer.weight = nn.Parameter(part)
    found = quick(model, (torch.randn(3, 4),))
    assert [operator.weights for operator in found.operators] == [{"0.weight": 64}, {"1.weight": 64}]


def test_keyword_arguments_and_fresh_inputs():
    class Sum(nn.Module):
        def forward(self, *, parts):
            return parts.pop() + parts.pop()

    found = quick(Sum(), lambda: {"parts": [torch.ones(2), torch.ones(2)]})
    assert found.by_name["Sum"].calls[0].bytes_in == 16


def test_the_most_that_is_alive():
    found = quick(nn.Sequential(nn.Linear(4, 100), nn.Linear(100, 4)), (torch.randn(1, 4),))
    assert found.activation_bytes == 416  # 100 wide, and one of the narrow ones


def test_inputs_are_moved_wherever_they_are():
    @dataclasses.dataclass
    class Batch:
        ids: torch.Tensor
        size: int

    moved = on_device([{"a": torch.ones(1)}, (Batch(torch.ones(2), 3), "x")], "meta")
    assert moved[0]["a"].is_meta
    assert moved[1][0].ids.is_meta
    assert moved[1][0].size == 3


def test_wrong_calls_are_refused():
    with pytest.raises(PlacementError, match="give one each for: host, device"):
        profile(nn.Identity(), (torch.ones(1),), {"host": "cpu"})
    with pytest.raises(PlacementError, match="repeats=0"):
        profile(nn.Identity(), (torch.ones(1),), PRETEND, repeats=0)


def test_a_link_is_fitted():
    link = fit_link([(size, 2e-6 + size / 1e9) for size in (1000, 10**5, 10**7)])
    assert link.latency == pytest.approx(2e-6)
    assert link.bandwidth == pytest.approx(1e9)
    assert link.seconds(1000) == pytest.approx(3e-6)


def test_a_link_has_no_negative_part():
    assert fit_link([(1000, 1.0), (2000, 4.0)]).latency == 0
    assert fit_link([(1000, 4.0), (2000, 1.0)]).bandwidth == BOUNDLESS
    assert fit_link([(1000, 0.0), (2000, 0.0)]) == Link(0.0, BOUNDLESS)


def test_the_spread_is_the_quartiles():
    assert Timing.of([1.0, 2.0, 3.0, 4.0, 100.0]) == Timing(3.0, 2.0, 4.0, 1.0, 5)
    assert Timing.of([1.0]) == Timing(1.0, 1.0, 1.0, 1.0, 1)


@pytest.mark.parametrize(("times", "whole"), [([5.0, 3.0, 1.0], 6.0), ([5.0, 3.0, 1.0], 2.0), ([1.0, 2.0], 7.0)])
def test_the_parts_make_the_whole_however_short_they_are(times, whole):
    found = profile_of([(t, t) for t in times], [{}] * len(times), chain_edges([0] * (len(times) + 1)))
    timing = Timing(whole, whole, whole, whole, 1)
    found = dataclasses.replace(found, whole=dict.fromkeys(PLACES, timing))
    assert sum(found.cost(name, "host") for name in found.by_name) == pytest.approx(whole)
    assert all(found.cost(name, "host") >= 0 for name in found.by_name)


def test_passes_longer_than_their_parts_are_interrupted_by_time():
    found = profile_of([(1.0, 1.0), (3.0, 3.0)], [{}] * 2, chain_edges([0] * 3))
    found = dataclasses.replace(found, whole=dict.fromkeys(PLACES, Timing(8.0, 8.0, 8.0, 8.0, 1)))
    assert (found.cost("op0", "host"), found.cost("op1", "host")) == (2.0, 6.0)


def test_what_a_switch_costs_is_the_median_of_a_kind():
    found = profile_of([(1.0, 1.0)] * 3, [{}] * 3, chain_edges([0] * 4))
    calls = [dataclasses.replace(found.operators[0].calls[0], switched={"host": s}) for s in (0.25, 9.0, 0.5)]
    operators = [dataclasses.replace(o, calls=(call,)) for o, call in zip(found.operators, calls, strict=True)]
    found = dataclasses.replace(found, operators=tuple(operators))
    assert [found.switched(name, place) for name in found.by_name for place in PLACES] == [0.5, 0.0] * 3
    calls = [dataclasses.replace(call, switched={"host": -1.0}) for call in calls]
    operators = [dataclasses.replace(o, calls=(call,)) for o, call in zip(found.operators, calls, strict=True)]
    assert dataclasses.replace(found, operators=tuple(operators)).switched("op0", "host") == 0
