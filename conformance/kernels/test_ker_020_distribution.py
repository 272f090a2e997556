"""KER-020."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    import torch

    from gaugeblock.conformance.kernels.judging import RecordProperty
    from gaugeblock.conformance.kernels.sampled import Row
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

OPS = ("sampling",)
ALPHA = 1e-6
"""The probability that one test fails a right sampler with random numbers of its own; three tests, so 3e-6 a run."""

SIZES = {"cpu": (400, 640, 32), "cuda": (128256, 2**17, 1000)}
"""Vocabulary, draws from each row and bins."""

BATCH = 512


@check(
    "KER-020",
    feature="kernels",
    bound="a χ² test of the counts in at most 1000 bins of equal mass, at α = 1e-6 a test and 3e-6 a run; the uniform "
    "numbers are fixed, so that a sampler that uses them always gets the same verdict. It finds a root mean square "
    "deviation of the bins of 5% on a GPU (2¹⁷ draws), of 28% in the interpreter (640)",
    sources=(
        "https://github.com/InternLM/lmdeploy/pull/1239",
        "https://github.com/NVIDIA/Megatron-LM/pull/7182",
    ),
    timeout=60,
)
def test_ker_020(kernels: KernelTarget, op: Op, record_property: RecordProperty) -> None:
    """Kept tokens are drawn in proportion to their probabilities.

    Some bins too full, all others short: kept mass that is not renormalised, its remainder on the last token. A tail
    that is short: a cumulative sum in half precision, in which small probabilities vanish.
    """
    from gaugeblock.conformance.kernels.sampled import offered

    evidence = [_test(kernels, op, row) for row in offered(kernels, op, _rows(SIZES[kernels.device][0]))]
    record_property("evidence", {"op": op.name, "module": kernels.name, "device": kernels.device, "tests": evidence})


def _rows(vocabulary: int) -> list[Row]:
    import torch

    from gaugeblock.conformance.kernels.sampled import Row

    logits = 2 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(20), dtype=torch.float64)
    return [
        Row("every filter off", logits.softmax(0).float()),
        Row("top-k 50", logits.softmax(0).float(), top_k=50),
        Row("top-k 50 and top-p 0.9", (2 * logits).softmax(0).float(), top_k=50, top_p=0.9),
    ]


def _test(kernels: KernelTarget, op: Op, row: Row) -> dict[str, object]:
    import torch

    from gaugeblock.conformance.kernels.sampled import chi_squared, require_inside

    _, draws, most_bins = SIZES[kernels.device]
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(21))
    tokens = _drawn(kernels, op, row, uniform)
    require_inside(row, tokens)
    found = chi_squared(row, tokens, most_bins)
    assert found.chance >= ALPHA, (
        f"{row.name}: the distribution is wrong, χ² = {found.statistic:.1f} with {found.freedom} degrees of freedom in "
        f"{draws} draws, a chance of {found.chance:.2g}; worst are ids {found.worst_ids}: "
        f"{found.worst_count:.0f} draws, {found.worst_expected:.1f} expected"
    )
    return {"row": row.name, "statistic": round(found.statistic, 2), "freedom": found.freedom, "chance": found.chance}


def _drawn(kernels: KernelTarget, op: Op, row: Row, uniform: torch.Tensor) -> torch.Tensor:
    """Return a token for each uniform number, batch by batch of the same rows, which are placed once."""
    import torch

    batch = kernels.place(row.case(torch.zeros(BATCH)))
    tokens = []
    for part in (uniform[i : i + BATCH] for i in range(0, len(uniform), BATCH)):
        inputs = {name: tensor[: len(part)] for name, tensor in batch.items()}
        inputs["uniform"] = part.to(kernels.device)
        tokens.append(kernels.call(op, inputs, {})["token"].cpu())
    return torch.cat(tokens)
