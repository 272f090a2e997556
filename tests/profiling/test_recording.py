"""A recording without the GPU's kernels is never taken for a model that costs nothing."""

from types import SimpleNamespace

import pytest
import torch

from gaugeblock.conformance.profiling import workload
from gaugeblock.fixtures.errors import EnvironmentFault

CPU, CUDA = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA


class Recording:
    """A profiler that saw events of some devices."""

    def __init__(self, devices):
        self.devices = devices
        self.exported = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def events(self):
        return [SimpleNamespace(device_type=device) for device in self.devices]

    def export_chrome_trace(self, path):
        self.exported = True


@pytest.fixture
def recordings(monkeypatch):
    """Let the next profilers be these, each of a run that is slower than the one before."""

    def arrange(*devices):
        made = [Recording(seen) for seen in devices]
        queue, times = iter(made), iter(range(1, 99))
        monkeypatch.setattr(torch.profiler, "profile", lambda **options: next(queue))
        run = lambda model, work, annotate=False: (workload.Seconds(float(next(times)), 0.0), None)  # noqa: E731 # a stand-in
        monkeypatch.setattr(workload, "run", run)
        return made

    return arrange


def model(device):
    return SimpleNamespace(device=SimpleNamespace(type=device))


WORK = SimpleNamespace(decode=1)


def test_the_fastest_run_that_holds_kernels_is_exported(recordings, tmp_path):
    empty, full, slower = recordings((CPU,), (CPU, CUDA), (CUDA,))
    workload.profile(model("cuda"), WORK, tmp_path / "trace.json")
    assert (empty.exported, full.exported, slower.exported) == (False, True, False)


def test_no_kernel_in_any_run_is_an_error_that_says_what_to_look_for(recordings, tmp_path):
    recordings((CPU,), (CPU,), ())
    with pytest.raises(EnvironmentFault, match="no kernel of the GPU in 3 runs: is another profiler attached"):
        workload.profile(model("cuda"), WORK, tmp_path / "trace.json")


def test_on_a_cpu_there_are_none(recordings, tmp_path):
    first, *_ = recordings((CPU,), (CPU,), (CPU,))
    workload.profile(model("cpu"), WORK, tmp_path / "trace.json")
    assert first.exported
