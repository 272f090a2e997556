"""`-m gpu` takes the kernel checks where they run on a GPU, and none of them in the interpreter."""

import pytest

pytest_plugins = ["pytester"]

COMMAND = (
    "--pyargs", "gaugeblock.conformance.kernels", "--gb-kernels", "gaugeblock.kernels", "--gb-op", "softmax",
    "-m", "gpu", "--collect-only", "-q", "-p", "no:cacheprovider",
)  # fmt: skip
FAKED = """
from gaugeblock.kernels import runtime
runtime.DEVICE = {device!r}
"""


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_kernel_checks_are_gpu_tests_where_cuda_is(device, pytester):
    pytester.makepyfile(faked_device=FAKED.format(device=device))
    result = pytester.runpytest_subprocess("-p", "faked_device", *COMMAND, timeout=60)
    collected = [line for line in result.outlines if "::test_ker_" in line]
    assert bool(collected) == (device == "cuda"), result.stdout.str()
    assert ("no CUDA device" in result.stdout.str()) == (device == "cpu")
    if device == "cuda":
        assert any("test_ker_002[softmax]" in line for line in collected)
        assert any("test_ker_022[softmax]" in line for line in collected)
