"""KER-019."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    import torch

    from gaugeblock.conformance.kernels.sampled import Row
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

OPS = ("sampling",)
VOCABULARY = {"cpu": 301, "cuda": 32001}
FILTERS: dict[str, dict[str, float]] = {
    "top-k": {"top_k": 5},
    "greedy": {"top_k": 1},
    "top-p": {"top_p": 0.5},
    "min-p": {"min_p": 0.25},
    "top-k before top-p": {"top_k": 3, "top_p": 0.9375},
    "top-p before top-k": {"top_k": 40, "top_p": 0.375},
    "all three": {"top_k": 8, "top_p": 0.625, "min_p": 0.0625},
}


@check(
    "KER-019",
    feature="kernels",
    bound="exact: membership in the kept set. A token may be in or out only where an fp32 sum of the row (an error of "
    "2·γ(2√V + log₂V), the contract's longest chain) decides it. A sampler with random numbers of its own draws until "
    "a right one misses any kept token with a probability below 1e-9",
    sources=(
        "https://github.com/flashinfer-ai/flashinfer/issues/384",
        "https://github.com/NVIDIA/TensorRT-LLM/issues/1590",
        "https://github.com/sgl-project/sglang/pull/36173",
    ),
)
def test_ker_019(kernels: KernelTarget, op: Op) -> None:
    """Only tokens that the filters keep are drawn, and each of them is.

    A token outside: the filter is looser than asked for, another row's filter, or ids of another order. A token that
    never comes: tighter; filters one after the other on renormalised probabilities instead of all on the original ones.
    """
    from gaugeblock.conformance.kernels.sampled import offered, require_kept, together, uniforms

    rows = offered(kernels, op, _rows(VOCABULARY[kernels.device]))
    uniform = uniforms(kernels, op, rows)
    outputs = kernels.run(op, together(rows, uniform))
    for row, tokens in zip(rows, outputs["token"].cpu().view(-1, len(uniform)), strict=True):
        require_kept(row, tokens)


def _rows(vocabulary: int) -> list[Row]:
    from gaugeblock.conformance.kernels.sampled import Row
    from gaugeblock.kernels.sampling import fuzz

    return [
        Row(name, _probs(vocabulary, seed), slack=fuzz(vocabulary), **filters)  # type: ignore[arg-type] # int and float
        for seed, (name, filters) in enumerate(FILTERS.items())
    ]


def _probs(vocabulary: int, seed: int) -> torch.Tensor:
    """Return softmax of logits of a few likely tokens, spread over the vocabulary, among many unlikely ones."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(vocabulary, generator=generator, dtype=torch.float64) - 10
    places = torch.randperm(vocabulary, generator=generator)[:12]
    logits[places] = torch.linspace(4, 1, 12, dtype=torch.float64)
    logits[-1] = 3.6  # the last token is a likely one, so that a tail that is not read shows
    return logits.softmax(0).float()
