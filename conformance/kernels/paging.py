"""Other placements of the same paged cache."""

from __future__ import annotations

from dataclasses import replace

import torch

from gaugeblock.kernels.contract import Case, Tensors

CACHES = ("k_cache", "v_cache")  # [pages, page_size, kv_heads, head_dim]


def permuted(case: Case, seed: int) -> Case:
    """Return the case with its physical pages in another order and the block table pointing at them."""
    pages = case.inputs[CACHES[0]].shape[0]
    order = torch.randperm(pages, generator=torch.Generator().manual_seed(seed))  # new place of each page
    inputs = dict(case.inputs)
    for name in CACHES:
        inputs[name] = torch.empty_like(case.inputs[name]).index_copy_(0, order, case.inputs[name])
    table = case.inputs["block_table"]
    inputs["block_table"] = order[table.long()].to(table.dtype)
    return replace(case, label=f"{case.label} pages permuted", inputs=inputs)


def unused(case: Case) -> torch.Tensor:
    """Return which slots of the cache no request may read: NaN stands there (``[pages, page_size]``, bool)."""
    nan = case.inputs[CACHES[0]].isnan()
    return nan.flatten(2).all(-1)


def refilled(case: Case, value: float) -> Tensors:
    """Return the inputs with ``value`` in every unused slot."""
    inputs = dict(case.inputs)
    for name in CACHES:
        inputs[name] = torch.where(unused(case)[:, :, None, None], value, case.inputs[name])
    return inputs
