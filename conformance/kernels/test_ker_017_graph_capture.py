"""KER-017."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op


@check(
    "KER-017",
    feature="kernels",
    bound="exact: on a GPU a captured graph, replayed on other inputs, gives the bits of a direct call; everywhere, a "
    "call reads no value of a tensor on the host",
    sources=(
        "https://github.com/flashinfer-ai/flashinfer/issues/4609",
        "https://github.com/GeeeekExplorer/nano-vllm/pull/157",
    ),
    timeout=120,
)
def test_ker_017(kernels: KernelTarget, op: Op) -> None:
    """The op can be captured into a graph and replayed on other inputs.

    A call that reads a tensor on the host (``.item()``, ``.tolist()``, ``if tensor:``) stalls the GPU, and a capture
    either fails there or freezes what was read: the replay uses yesterday's lengths.
    """
    from gaugeblock.conformance.kernels.capture import host_reads, replayed
    from gaugeblock.conformance.kernels.judging import affordable, claimed, require_same_bits

    for case in claimed(kernels, op, affordable(kernels, op, 6, op.sizes.usual, 18), exact=False):
        inputs = kernels.place(case)
        with host_reads() as reads:
            kernels.call(op, inputs, case.params)
        assert not reads, f"{case.label}: the call reads tensors on the host by {', '.join(reads)}"
        if kernels.device == "cpu" or kernels.own_randomness(op):
            continue
        direct, replay = replayed(kernels, op, case)
        for name, expected in direct.items():
            require_same_bits(replay[name], expected, f"{case.label}: {name} of a replayed graph")
