"""The command where there is no GPU, and its misuse."""

import pytest
import torch
from click.testing import CliRunner

from gaugeblock.conformance.cli.main import cli
from gaugeblock.fixtures.errors import EnvironmentFault, KitError


def invoke(*arguments):
    result = CliRunner().invoke(cli, ["bench", "kernels", *arguments], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    with pytest.raises(EnvironmentFault, match="times need an NVIDIA GPU"):
        invoke("--out", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_op_is_answered_with_the_legal_ones():
    with pytest.raises(KitError, match=r"unknown op 'sofmax'. Did you mean 'softmax'\?"):
        invoke("--op", "sofmax")


def test_a_module_that_cannot_be_imported_is_named_with_the_option_that_named_it():
    with pytest.raises(KitError, match=r"cannot import 'no_such_module'.*: --kernels takes"):
        invoke("--kernels", "no_such_module")


def test_every_op_of_several_is_timed(monkeypatch, tmp_path):
    chosen = []

    def run(kernels, workloads, *rest, **more):
        chosen.extend(workload.op for workload in workloads)
        raise KitError("enough")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("gaugeblock.conformance.bench.timing.GpuTimer", lambda: None)
    monkeypatch.setattr("gaugeblock.conformance.bench.run.run", run)
    with pytest.raises(KitError, match="enough"):
        invoke("--op", "softmax", "--op", "rope", "--no-peers", "--out", str(tmp_path))
    assert set(chosen) == {"softmax", "rope"}


def test_an_op_without_a_shape_is_not_passed_over():
    with pytest.raises(KitError, match="no timed shape of gelu_and_mul with --quick"):
        invoke("--op", "softmax", "--op", "gelu_and_mul", "--quick")
