"""A recording that lacks the GPU's kernels is never taken for a model that costs nothing."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gaugeblock.conformance.profiling import measure, recording, study
from gaugeblock.conformance.profiling.operators import operators
from gaugeblock.conformance.profiling.trace import parse_trace, read_trace
from gaugeblock.conformance.profiling.workload import Seconds
from gaugeblock.fixtures.errors import EnvironmentFault

WORK = SimpleNamespace(decode=1)


def span(cat, name, ts, dur, **args):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "pid": 1, "tid": 2, "args": args}


def trace(launches, kernels):
    """Return a trace of one operator that launches, of which some kernels were recorded."""
    events = [span("cpu_op", "aten::mm", 0, 100, **{"External id": 1})]
    events += [span("cuda_runtime", "cudaLaunchKernelExC", i, 1, correlation=i) for i in range(launches)]
    events += [span("kernel", "gemm", 200 + i, 5, correlation=i) for i in range(kernels)]
    return {"traceEvents": events}


class Recorder:
    """A profiler whose trace is given; ``elapsed`` are the CUDA events' times by operator."""

    def __init__(self, data, elapsed=()):
        self.data = data
        results = [SimpleNamespace(correlation_id=lambda i=i: i, cuda_elapsed_us=lambda us=us: us) for i, us in elapsed]
        self.kineto_results = SimpleNamespace(events=lambda: results)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def export_chrome_trace(self, path):
        Path(path).write_text(json.dumps(self.data))


@pytest.fixture
def record(monkeypatch, tmp_path):
    """Record with these traces in turn, each of a run that is slower than the one before; return what was kept."""

    def arrange(*traces, device="cuda", by_events=None):
        queue, times, waits = iter(traces), iter(range(1, 99)), []
        monkeypatch.setattr(torch.profiler, "profile", lambda **options: Recorder(next(queue)))
        monkeypatch.setattr(torch.autograd.profiler, "profile", lambda **options: by_events)
        monkeypatch.setattr(recording, "run", lambda *a, **k: (Seconds(float(next(times)), 0.0), None))
        monkeypatch.setattr(recording, "_busy", lambda seconds: None)
        monkeypatch.setattr(recording, "time", SimpleNamespace(sleep=waits.append))
        monkeypatch.setattr(recording, "_first_try", {})
        out = tmp_path / "trace.json"
        recording.profile(SimpleNamespace(device=SimpleNamespace(type=device)), WORK, out)
        return json.loads(out.read_text()), waits

    return arrange


def test_the_fastest_run_that_holds_its_kernels_is_kept(record):
    kept, waits = record(trace(300, 0), trace(300, 298), trace(300, 300))
    assert kept == trace(300, 298)
    assert set(waits) == {0.0}


def test_a_run_that_lost_its_first_kernels_is_not_kept(record):
    kept, _ = record(trace(300, 138), trace(300, 300), trace(300, 300))
    assert kept == trace(300, 300)


def test_kernels_whose_clock_is_off_are_caught_by_a_longer_recording(record):
    kept, waits = record(*[trace(300, 0)] * 3, trace(300, 300), *[trace(300, 0)] * 2)
    assert kept == trace(300, 300)
    assert waits == [0.0] * 6 + [1.0] * 6  # before and after each run


def test_what_did_not_help_is_not_tried_again(record, monkeypatch):
    record(*[trace(300, 0)] * 3, *[trace(300, 300)] * 3)
    assert recording._first_try == {"cuda": 1}


def test_without_kernels_operators_are_timed_by_events(record):
    nested = trace(300, 0)
    nested["traceEvents"].append(span("cpu_op", "aten::linear", -5, 200, **{"External id": 7}))
    nested["traceEvents"].append(span("cpu_op", "aten::view", 500, 2, **{"External id": 9}))
    kept, _ = record(*[nested] * 6, by_events=Recorder(nested, [(1, 40.0), (7, 50.0), (9, -1.0)]))
    found = parse_trace(kept)
    assert found.by_events
    assert found.on_device
    rows = {row.name: (row.self_us, row.launches) for row in operators(found, None)}
    assert rows == {"aten::mm": (40.0, 1), "aten::linear": (10.0, 1), "aten::view": (0.0, 0)}


def test_neither_kernels_nor_events_is_an_error_that_says_what_to_look_for(record):
    with pytest.raises(EnvironmentFault, match="no kernel of the GPU in 6 runs, and CUDA events"):
        record(*[trace(300, 0)] * 6, by_events=Recorder(trace(300, 0), [(1, -1.0)]))


def test_on_a_cpu_there_are_none(record):
    kept, _ = record(trace(0, 0), trace(0, 0), trace(0, 0), device="cpu")
    assert kept == trace(0, 0)


@pytest.mark.parametrize(("launches", "kernels", "share"), [(0, 0, 0.0), (4, 0, 0.0), (4, 1, 0.25), (0, 3, 1.0)])
def test_share_of_launches_with_a_kernel(launches, kernels, share):
    assert recording.kernels_kept(trace(launches, kernels)) == share


def test_a_synchronisation_is_no_launch():
    data = trace(2, 2)
    data["traceEvents"].append(span("cuda_runtime", "cudaStreamSynchronize", 50, 1, correlation=77))
    assert recording.kernels_kept(data) == 1.0


def test_events_say_nothing_of_kernels_outside_operators_and_nothing_is_said(monkeypatch, tmp_path):
    """A fused Triton kernel is launched by no operator: before and after would compare it with nothing."""
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(recording.with_event_times(trace(300, 0), {1: 40.0})))
    monkeypatch.setattr(measure, "profile", lambda model, work, out: None)
    work = measure.observe(SimpleNamespace(device=torch.device("cpu")), WORK, path)
    assert (work.launches, work.busy_us) == ({}, {})
    assert study.BY_EVENTS in study.read_study("a model", path, None).notes
    assert read_trace(path).by_events


def test_ids_of_operators_in_a_trace_are_those_of_their_events(tmp_path):
    with torch.autograd.profiler.profile() as profiler:
        torch.ones(3).add(1)
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    ids = {event.correlation_id(): event.name() for event in profiler.kineto_results.events()}
    calls = list(read_trace(tmp_path / "trace.json").walk())
    assert {call.name for call in calls} >= {"aten::ones", "aten::add"}
    assert all(ids[call.id] == call.name for call in calls)
