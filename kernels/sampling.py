"""Top-k, top-p and min-p sampling: from probabilities to one token id a row, in two launches and without a sort.

**Kept set.** Every filter looks at the original probabilities (flashinfer's ``filter_apply_order="joint"``), and all
are monotone in the value, so that one threshold decides. Token t of a row is kept when all of these hold:

- p_t > 0;
- top-k: fewer than k tokens are strictly more probable than t (k ≤ 0 or k ≥ V: off);
- top-p: the mass of the tokens strictly more probable than t is less than ``top_p`` (1: off). The mass is of the row as
  it is given; rows are expected to sum to about 1;
- min-p: p_t ≥ ``min_p``·max p, the product rounded once to fp32 (0: off);

and the largest value is kept whatever the filters say. So **ties are kept or dropped together**, as many as there are:
a token is never left out because of its id. That is the rule of flashinfer's and sgl_kernel's samplers (sglang #33539);
one that sorts and cuts after exactly k entries, as vLLM's Triton kernel does (vllm #50979), breaks it.

**Token.** The inverse of the kept tokens' distribution function in the order of ids: the smallest t for which the kept
mass of ids ≤ t exceeds ``uniform``·(kept mass). Nothing is renormalised: the product is compared in mass.

A row without a positive finite probability yields 0: no id is ever out of range. NaN, ±inf and negative values count
as 0. ``uniform`` outside [0, 1) counts as the nearest number inside.

**Exactness.** Whether a mass is less than ``top_p`` is a question of rounding only for tokens at the boundary. Where
all sums are exact in fp32 (integer multiples of one power of two, 24 bits in all) the answer is exact, and so is the
token: the cases of :func:`make` are such. For other rows a sampler that sums in fp32 may decide either way where the
mass above a token is within :func:`fuzz` of ``top_p``. This kernel sums integers (``_sampling_kernels``), off by less
than 2⁻⁴² of the largest probability for each token, in every order alike.

**fp32 alone.** Engines' samplers turn logits into fp32 before anything else (vLLM: ``v1/sample/sampler.py``), and the
probabilities of a vocabulary need it: in bf16, of 8 bits, most of 128 256 tokens would tie with others, and ties are
kept or dropped together. So other dtypes are refused, not converted.

Top-p: Holtzman et al. 2020, arXiv:1904.09751. min-p: Nguyen et al. 2024, arXiv:2407.01082. Sorting-free rejection
sampling, the approach of flashinfer: https://flashinfer.ai/2025/03/10/sampling.html.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gaugeblock.kernels._sampling_kernels import _draw_kernel, _maxima_kernel
from gaugeblock.kernels.arguments import Refused, input_rows, require_like, require_shape
from gaugeblock.kernels.bounds import gamma, sum_depth
from gaugeblock.kernels.contract import Case, Op, Sizes, Tensors
from gaugeblock.kernels.runtime import INTERPRETED, next_power_of_two, quiet

MAX_VOCAB = 2**19


@dataclass(frozen=True)
class Config:
    """Tiles of the two kernels.

    ``rows`` a program; ``lanes`` maxima that a program of the first kernel keeps, each of a group of at least ``depth``
    tokens; ``slots`` groups that are gathered, or four times as many before the whole row is searched instead. The
    threshold of the maxima may be 2^``spread`` units in the last place low: fewer steps, and a few more groups. Whole
    rows are searched ``block``
    tokens and ``pivots`` values at a time, with ``stages`` blocks on their way; ``places`` tokens a lane are packed.
    """

    rows: int = 1
    lanes: int = 1024
    depth: int = 32
    slots: int = 64
    spread: int = 16
    block: int = 2048
    pivots: int = 2
    stages: int = 4
    places: int = 8
    warps_maxima: int = 8
    warps_draw: int = 8


CONFIGS = (
    (
        Config(rows=8, lanes=512, depth=16, block=1024),
        Config(rows=32, lanes=512, depth=16, block=1024),
        Config(rows=128, lanes=128, depth=8, slots=16, block=512),
        Config(rows=8, lanes=256, depth=4, slots=1, spread=0, block=256, pivots=4, places=1),
        Config(rows=8, lanes=128, depth=8, slots=128, block=512),
    )
    if INTERPRETED
    else (
        Config(),
        Config(depth=16, slots=128, pivots=4, warps_draw=16),
        Config(slots=1, spread=0, block=512, places=1),
        Config(rows=2, lanes=512, block=1024),
    )
)
"""All tile configurations: the first ones are launched, the others are other paths through the same kernels.

With one slot nearly every row is searched as a whole, with one place a lane that search runs out of places.
"""


def config_for(rows: int) -> Config:
    """Return the tiles for a number of rows: interpreted, many rows share a program."""
    return CONFIGS[(rows > 8) + (rows > 40) if INTERPRETED else 0]


def sampling(
    probs: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    uniform: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """Return one token id a row, int64 ``[rows]``.

    ``probs`` fp32 ``[rows, vocab]``; ``top_k`` int32, ``top_p``, ``min_p`` and ``uniform`` (in [0, 1)) fp32, each
    ``[rows]``. ``out`` takes the result and must not overlap an input.

    Raises:
        Refused: shapes, dtypes, devices or strides that the op does not take.
    """
    if probs.dim() != 2:
        raise Refused(f"probs has shape {tuple(probs.shape)}, expected [rows, vocab]")
    rows, vocab = probs.shape
    if not 1 <= vocab <= MAX_VOCAB:
        raise Refused(f"the last dimension of probs is {vocab}, supported: 1…{MAX_VOCAB}")
    require_dtype("probs", probs, torch.float32)
    require_like("probs", {"probs": probs, "top_p": top_p, "min_p": min_p, "uniform": uniform})
    out = torch.empty(rows, dtype=torch.int64, device=probs.device) if out is None else out
    for name, tensor, dtype in (("top_k", top_k, torch.int32), ("out", out, torch.int64)):
        require_dtype(name, tensor, dtype)
        if tensor.device != probs.device:
            raise Refused(f"{name} is on {tensor.device} but probs is on {probs.device}")
    parameters = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "uniform": uniform}
    for name, tensor in {**parameters, "out": out}.items():
        require_shape(name, tensor, (rows,))
    _launch(input_rows(probs), {n: t.contiguous() for n, t in parameters.items()}, out, config or config_for(rows))
    return out


def require_dtype(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse another dtype."""
    if tensor.dtype != dtype:
        raise Refused(f"{name} is {tensor.dtype}; supported: {dtype}")


def tiles(vocab: int, config: Config) -> tuple[dict[str, int], dict[str, int], int]:
    """Return the constants of both kernels, those of the second alone, and the number of programs that share a row."""
    depth = max(config.depth, next_power_of_two(-(-vocab // 8192)))  # at most 8192 groups, and one program's more
    splits = -(-vocab // (depth * config.lanes))
    both = {"ROWS": config.rows, "LANES": config.lanes, "DEPTH": depth}
    second = {
        "GROUPS": next_power_of_two(splits * config.lanes),
        "SLOTS": config.slots,
        "SPREAD": 1 << config.spread,
        "BLOCK": config.block,
        "BLOCKS": max(next_power_of_two(-(-vocab // config.block)), 32),  # one binary for all small ones
        "PIVOTS": config.pivots,
        "STAGES": config.stages,
        "PLACES": config.places,
    }
    return both, second, splits


def _launch(probs: torch.Tensor, parameters: Tensors, out: torch.Tensor, config: Config) -> None:
    rows, vocab = probs.shape
    if rows == 0:
        return
    both, second, splits = tiles(vocab, config)
    groups = splits * config.lanes
    width = groups + 16 * -(-4 * config.slots // 16) + config.block * config.places
    scratch = torch.empty((rows, width), dtype=torch.int32, device=probs.device)
    programs = -(-rows // config.rows)
    where = (rows, vocab, probs.stride(0), scratch.stride(0))
    with quiet():
        _maxima_kernel[(programs, splits)](probs, scratch, *where, **both, num_warps=config.warps_maxima)
        _draw_kernel[(programs,)](
            probs,
            *parameters.values(),
            out,
            scratch,
            *where,
            groups,
            out.stride(0),
            **both,
            **second,
            num_warps=config.warps_draw,
        )


def eager(
    probs: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, min_p: torch.Tensor, uniform: torch.Tensor
) -> torch.Tensor:
    """Return the op from PyTorch's own kernels, by one sort: the baseline of times."""
    kept = kept_set(probs, top_k, top_p, min_p)
    mass = torch.where(kept, probs, 0.0).cumsum(1)
    target = (uniform * mass[:, -1])[:, None].contiguous()
    token = torch.searchsorted(mass, target, right=True).squeeze(1).clamp(max=probs.shape[1] - 1)
    return torch.where(mass[:, -1] > 0, token, 0)


def kept_set(
    probs: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, min_p: torch.Tensor, slack: float = 0.0
) -> torch.Tensor:
    """Return which tokens are kept, bool ``[rows, vocab]``, with sums in the dtype of ``probs``.

    ``slack`` widens the set (or, negative, narrows it): a token is kept while the mass above it is less than
    ``top_p + slack``, and from ``min_p·max·(1 − slack)`` on.
    """
    probs = torch.where((probs > 0) & probs.isfinite(), probs, 0.0)
    vocab = probs.shape[1]
    ordered, order = probs.sort(dim=1, descending=True)
    starts = torch.ones_like(ordered, dtype=torch.bool)  # of runs of equal values
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    rank = torch.where(starts, torch.arange(vocab, device=probs.device), 0).cummax(1).values
    above = (ordered.cumsum(1) - ordered).gather(1, rank)
    k = torch.where((top_k > 0) & (top_k < vocab), top_k, vocab)[:, None]
    p = top_p.to(probs.dtype)[:, None]
    largest = ordered[:, :1]
    least = (min_p[:, None] * largest.float()).to(probs.dtype) * (1 - slack)
    kept = (rank < k) & ((above < p + slack) | (p >= 1)) & (ordered >= least)
    kept = (kept | (ordered == largest)) & (ordered > 0)
    return torch.zeros_like(kept).scatter_(1, order, kept)


def fuzz(vocab: int) -> float:
    """Return how far an fp32 sum of probabilities may be from their mass: the op's contract on sums."""
    return 2 * gamma(sum_depth(vocab))


def oracle(case: Case) -> Tensors:
    """Return the token ids, from float64 sums."""
    probs, top_k, top_p, min_p, uniform = case.inputs.values()
    probs = probs.double()
    kept = kept_set(probs, top_k, top_p, min_p)
    mass = torch.where(kept, probs, 0.0).cumsum(1)
    reached = mass > uniform.double()[:, None] * mass[:, -1:]
    return {"token": reached.to(torch.int8).argmax(1)}


def bound(case: Case, expected: Tensors) -> Tensors:
    """Return zeros: the token is exact."""
    del case
    return {name: torch.zeros_like(token, dtype=torch.float64) for name, token in expected.items()}


KINDS = ("normal", "ties", "flat", "onehot", "greedy", "all", "broken")
"""Of rows: logits N(0, 2²); few distinct values; all equal; one 1; top_k = 1 at a tie; every filter off; no mass at all
(all 0, NaN, +inf or negative, in turn)."""


def make(rows: int, size: int, dtype: torch.dtype, seed: int = 0, kind: str = "normal") -> Case:
    """Return rows whose sums are exact: multiples of 2⁻¹⁶ (from 2¹³ tokens on, of 2⁻²⁰) that sum to 1.

    Every row has its own filters, all of few bits: some off, some alone, some together, and some rows with ``top_p``
    exactly at the mass above a token. ``uniform`` is a multiple of 2⁻⁷ (2⁻³), so that its product with a mass is
    exact, too.
    """
    if kind not in KINDS:
        raise ValueError(f"no probabilities of kind {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    bits, steps = (16, 128) if size < 2**13 else (20, 8)
    units = _units(rows, size, 2**bits, kind, generator)
    top_k, top_p, min_p = _filters(units / 2**bits, kind, generator)
    if kind == "broken":
        units[:] = torch.tensor([0.0, math.nan, math.inf, -1.0])[torch.arange(rows) % 4, None]
    inputs = {
        "probs": (units / 2**bits).to(dtype),
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "uniform": (torch.randint(0, steps, (rows,), generator=generator) / steps).to(dtype),
    }
    return Case(f"sampling {rows}×{size} {dtype} {kind} seed {seed}", dtype, inputs)


def _units(rows: int, size: int, total: int, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Return integers ``[rows, size]``, float64, that sum to ``total`` in each row."""
    logits = 2 * torch.randn(rows, size, generator=generator, dtype=torch.float64)
    if kind in ("ties", "greedy"):
        logits = logits.round()
    if kind == "flat":
        logits = torch.zeros_like(logits)
    if kind == "onehot":
        logits = torch.where(logits == logits.max(1, keepdim=True).values, 0.0, -100.0)
    units = (logits.softmax(1) * total).floor()
    if kind == "greedy":
        return units  # what is missing to the total would break the tie at the top
    place = torch.randint(0, size, (rows, 1), generator=generator)
    return units.scatter_add(1, place, total - units.sum(1, keepdim=True))


def _filters(
    probs: torch.Tensor, kind: str, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return top_k, top_p and min_p of each row."""
    rows, size = probs.shape

    def pick(values: list[float]) -> torch.Tensor:
        return torch.tensor(values)[torch.randint(0, len(values), (rows,), generator=generator)]

    top_k = pick([0, -1, 1, 2, 5, 50, size // 2, size, size + 7]).to(torch.int32)
    top_p = pick([1, 1, 0.5, 0.75, 0.9375, 0.03125])
    min_p = pick([0, 0, 0, 2**-8, 2**-4, 0.5, 1])
    if kind == "greedy":
        return torch.ones_like(top_k), top_p, min_p
    if kind == "all":
        return torch.zeros_like(top_k), torch.ones(rows), torch.zeros(rows)
    token = torch.randint(0, size, (rows, 1), generator=generator)
    above = torch.where(probs > probs.gather(1, token), probs, 0.0).sum(1).float()
    exact = (torch.arange(rows) % 4 == 3) & (above > 0)  # top-p alone, at the mass above a token
    return torch.where(exact, 0, top_k), torch.where(exact, above, top_p), torch.where(exact, 0, min_p)


def workload(
    device: str, dtype: torch.dtype, rows: int = 64, vocab: int = 128256, top_k: int = 50, top_p: float = 0.9
) -> Case:
    """Return softmax of logits N(0, 2²), the same filters for every row."""
    generator = torch.Generator(device).manual_seed(0)
    logits = 2 * torch.randn(rows, vocab, generator=generator, device=device)
    inputs = {
        "probs": logits.softmax(1).to(dtype),
        "top_k": torch.full((rows,), top_k, dtype=torch.int32, device=device),
        "top_p": torch.full((rows,), top_p, device=device),
        "min_p": torch.zeros(rows, device=device),
        "uniform": torch.rand(rows, generator=generator, device=device),
    }
    return Case(f"sampling {rows}×{vocab} top_k {top_k} top_p {top_p}", dtype, inputs)


def bytes_moved(case: Case) -> int:
    """Return the bytes of all inputs, and 8 a row for the token."""
    tensors = list(case.inputs.values())
    return sum(t.numel() * t.element_size() for t in tensors) + 8 * int(tensors[0].shape[0])


SHAPES: tuple[dict[str, int], ...] = (
    ({"rows": 9, "size": 8201},) if INTERPRETED else ({"rows": 65, "size": 128256}, {"rows": 513, "size": 32001})
)
"""Served shapes: vocabularies of Llama models, of which several programs share a row's maxima."""


CONTRACT = Op(
    name="sampling",
    signature="sampling(probs, top_k, top_p, min_p, uniform, *, out=None) -> token",
    make=make,
    workload=workload,
    oracle=oracle,
    bound=bound,
    exact=("token",),
    integer=True,
    outs={"token": "out"},
    dtypes=(torch.float32,),
    row_inputs=("probs", "top_k", "top_p", "min_p", "uniform"),
    kinds=KINDS,
    sizes=Sizes(),
    configs=CONFIGS,
    shapes=SHAPES,
    eager=eager,
    kernel=sampling,
    bytes_moved=bytes_moved,
    flops=lambda case: 3 * case.inputs["probs"].numel(),  # a comparison with the threshold, and the sum of what is kept
)
