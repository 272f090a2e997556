"""Rounding of weights that makes up for its own errors (GPTQ, arXiv 2210.17323), with nothing to pay at run time."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugeblock.reference.hybrid.int8_product import LIMIT

DAMPING = 0.01  # of the mean of the Gram matrix's diagonal, as in the paper
BLOCK = 64  # columns whose errors are carried on together


def compensated(weight: Tensor, scales: Tensor, gram: Tensor) -> Tensor:
    """Return ``weight`` [out, in] in whole steps of ``scales`` [out, 1], int8, that gives nearly the same products.

    Column by column the error of rounding one is carried over to the columns that are still to come, by how the inputs
    go together: ``gram`` [in, in] is the sum of xᵀ x over calibration inputs x [tokens, in]. Columns with the largest
    inputs come first.
    """
    order = gram.diagonal().argsort(descending=True, stable=True)
    factor = _inverse_factor(gram[order][:, order])
    rest = (weight / scales)[:, order]  # in steps
    whole = torch.empty_like(rest)
    for start in range(0, rest.shape[1], BLOCK):
        stop = min(start + BLOCK, rest.shape[1])
        block = rest[:, start:stop].contiguous()
        errors = torch.empty_like(block)
        for column in range(stop - start):
            line = factor[start + column, start + column : stop]
            value = block[:, column].round().clamp_(-LIMIT, LIMIT)
            whole[:, start + column] = value
            errors[:, column] = (block[:, column] - value) / line[0]
            block[:, column + 1 :].addr_(errors[:, column], line[1:], alpha=-1)
        rest[:, stop:].addmm_(errors, factor[start:stop, stop:], alpha=-1)
    back = order.argsort()
    return whole[:, back].to(torch.int8).contiguous()


def _inverse_factor(gram: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the damped matrix's inverse, fp32."""
    damping = DAMPING * float(gram.diagonal().mean()) or 1.0  # inputs that are all zero leave plain rounding
    damped = gram.double() + damping * torch.eye(len(gram), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
