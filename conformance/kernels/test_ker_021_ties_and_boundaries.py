"""KER-021."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.conformance.kernels.sampled import Row
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

OPS = ("sampling",)
VOCABULARY = 16  # of the rows below; the rest of each has no mass
RIGHT: dict[str, tuple[list[int], dict[str, float], list[int]]] = {
    "a tie at the k-th place is kept whole": ([4, 2, 2, 2, 1, 1, 4], {"top_k": 3}, [0, 1, 2, 3, 6]),
    "a tie at the top is kept whole by top-k 1": ([1, 6, 1, 6, 1, 1], {"top_k": 1}, [1, 3]),
    "exactly k distinct": ([1, 2, 4, 8, 1], {"top_k": 3}, [1, 2, 3]),
    "top-p reached exactly": ([8, 4, 2, 1, 1], {"top_p": 0.75}, [0, 1]),
    "top-p just missed": ([8, 4, 2, 1, 1], {"top_p": 0.8125}, [0, 1, 2]),
    "top-p below the largest": ([2, 8, 4, 2], {"top_p": 0.0625}, [1]),
    "a tie at top-p is kept whole": ([8, 2, 2, 2, 2], {"top_p": 0.5625}, [0, 1, 2, 3, 4]),
    "min-p reached exactly": ([8, 4, 2, 1, 1], {"min_p": 0.25}, [0, 1, 2]),
    "min-p 1": ([6, 6, 4], {"min_p": 1.0}, [0, 1]),
    "no token without mass": ([0, 8, 0, 4, 4, 0], {}, [1, 3, 4]),
    "top-k of the vocabulary's size is off": ([8, 4, 2, 2], {"top_k": VOCABULARY}, [0, 1, 2, 3]),
    "top-k above the vocabulary's size is off": ([8, 4, 2, 2], {"top_k": 1 << 30}, [0, 1, 2, 3]),
    "top-k -1 is off": ([8, 4, 2, 2], {"top_k": -1}, [0, 1, 2, 3]),
    "top-k and top-p look at the same mass": ([8, 4, 2, 2], {"top_k": 2, "top_p": 0.625}, [0, 1]),
    "one token has all": ([0, 0, 16], {"top_k": 50, "top_p": 0.9375}, [2]),
    "the last token has all": ([0] * 15 + [16], {}, [15]),
}
"""Probabilities in sixteenths, filters, and the ids that are kept. By hand, not by any program."""


@check(
    "KER-021",
    feature="kernels",
    bound="exact: sixteenths sum without rounding in every order, so that kept set and token have one right answer. "
    "Equal probabilities are kept or dropped together",
    sources=(
        "https://github.com/sgl-project/sglang/pull/33539",
        "https://github.com/vllm-project/vllm/pull/50979",
        "https://github.com/flashinfer-ai/flashinfer/pull/3774",
        "https://github.com/huggingface/transformers/issues/18976",
    ),
)
def test_ker_021(kernels: KernelTarget, op: Op) -> None:
    """Ties, filters that are met exactly, and cumulative mass that equals the uniform number fall on the stated side.

    The message names the row. A tie cut in two: a sort and a cut after k entries instead of a threshold. One token too
    many: "at most" instead of "less than" in top-p. A wrong token at a boundary: uniform 0 must give the first kept
    token, and mass equal to uniform × total belongs to the next one.
    """
    from gaugeblock.conformance.kernels.sampled import offered, require_kept, together, uniforms

    rows = offered(kernels, op, _rows())
    uniform = uniforms(kernels, op, rows)
    case = together(rows, uniform)
    drawn = kernels.run(op, case)["token"].cpu().view(-1, len(uniform))
    right = op.oracle(case)["token"].view(-1, len(uniform))
    for row, tokens, expected in zip(rows, drawn, right, strict=True):
        require_kept(row, tokens)
        if kernels.own_randomness(op):
            continue
        wrong = (tokens != expected).nonzero()[:, 0].tolist()
        assert not wrong, (
            f"{row.name}: token {tokens[wrong[0]].item()} instead of {expected[wrong[0]].item()} at uniform "
            f"{uniform[wrong[0]].item():g}, on a boundary between tokens; {len(wrong)} of {len(uniform)} are wrong"
        )


def _rows() -> list[Row]:
    import torch

    from gaugeblock.conformance.kernels.sampled import Row

    rows = []
    for name, (sixteenths, filters, kept) in RIGHT.items():
        probs = torch.tensor(sixteenths + [0] * (VOCABULARY - len(sixteenths))) / 16
        row = Row(name, probs, **filters)  # type: ignore[arg-type] # int and float
        assert row.kept(0.0).nonzero()[:, 0].tolist() == kept, f"the kit's own kept set of {name!r} is wrong"
        rows.append(row)
    return rows
