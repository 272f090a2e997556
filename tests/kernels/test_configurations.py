"""KER-016 runs every configuration in every dtype where they are compiled, in turn where they are interpreted."""

import pytest
import torch

from gaugeblock.conformance.kernels import test_ker_016_configurations as check
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels.contract import load_contracts
from gaugeblock.kernels.runtime import DEVICE

OP = load_contracts()["silu_and_mul"]


@pytest.mark.parametrize("every", [True, False])
def test_configurations_and_dtypes_that_are_run(every, monkeypatch):
    monkeypatch.setitem(check.EVERY_DTYPE, DEVICE, every)
    ran = []

    def watched(x, *, out=None, config=None):
        ran.append((config, x.dtype))
        return OP.kernel(x, out=out, config=config)

    watched.configs = OP.configs
    kernels = KernelTarget("watched", {OP.name: watched}, DEVICE)
    check.test_ker_016(kernels=kernels, op=OP, record_property=lambda name, value: None)
    ran = [pair for pair in ran if pair[0] is not None]  # the others ask what is offered
    pairs = {(config, dtype) for config in OP.configs for dtype in OP.dtypes}
    assert set(ran) <= pairs
    assert {config for config, _ in ran} == set(OP.configs)
    assert len(set(ran)) == (len(pairs) if every else len(OP.configs))


def test_what_a_configuration_leaves_unwritten_is_not_taken_from_the_one_before():
    """An allocator hands out the memory of the last result, in which the right values still lie."""

    def unwritten(x, *, out=None, config=None):
        right = OP.kernel(x)
        left = torch.empty_like(right)
        return left if left.isnan().all() else right

    unwritten.configs = OP.configs
    kernels = KernelTarget("unwritten", {OP.name: unwritten}, DEVICE)
    with pytest.raises(AssertionError, match="with "):
        check.test_ker_016(kernels=kernels, op=OP, record_property=lambda name, value: None)
