"""The exact product: every route that is taken gives the right integers, and one that saturates is not taken."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import pad

from gaugeblock.reference.hybrid import int8_product
from gaugeblock.reference.hybrid.int8_product import EXACT_COLUMNS, LIMIT, by_floats, integer_product

ROUTES = list(dict.fromkeys((int8_product.best_route(), by_floats)))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
@pytest.mark.parametrize("width", [1, 2, 7, 64, EXACT_COLUMNS, EXACT_COLUMNS + 1, 1536, 14336])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_are_exact_at_the_extremes(route, width, sign):
    for tokens in (1, 2, 9, 33):
        x = torch.full((tokens, width), LIMIT, dtype=torch.int8)
        weight = torch.full((5, width), sign * LIMIT, dtype=torch.int8)
        weight[1] -= sign
        expected = (x.long() @ weight.long().T).float()
        assert torch.equal(route(x, weight).float(), expected), f"{tokens} tokens"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
def test_any_shape_and_stride(route):
    generator = torch.Generator().manual_seed(0)

    def integers(*size):
        return torch.randint(-LIMIT, LIMIT + 1, size, generator=generator, dtype=torch.int8)

    for tokens in range(1, 10):
        for width, channels in ((1, 1), (3, 17), (131, 7), (576, 33)):
            x, weight = integers(tokens, width), integers(channels, width)
            expected = (x.long() @ weight.long().T).float()
            assert torch.equal(route(x, weight).float(), expected)
            strided = integers(2 * tokens, width + 5)[::2, 2 : 2 + width].copy_(x)
            turned = weight.t().contiguous().t()
            assert torch.equal(route(strided, turned).float(), expected)


def saturating(x, weight):
    """As processors without VNNI add: pairs of u8 × s8 products in 16 bits."""
    x, weight = (pad(t.int(), (0, t.shape[1] % 2)) for t in (x, weight))
    products = (x + 128)[:, None] * weight[None]
    sums = products.unflatten(2, (-1, 2)).sum(3).clamp(-(2**15), 2**15 - 1).sum(2)
    return (sums - 128 * weight.sum(1)).int()


def only_few(x, weight):
    return (by_floats if len(x) > 1 else saturating)(x, weight)


def refused(x, weight):
    raise NotImplementedError


@pytest.mark.parametrize("route", [saturating, only_few, refused])
def test_a_route_that_is_off_is_not_taken(route, monkeypatch):
    assert not int8_product.is_exact(route)
    assert int8_product.is_exact(by_floats)
    monkeypatch.setattr(int8_product, "ROUTES", (route, by_floats))
    int8_product.best_route.cache_clear()
    try:
        assert int8_product.best_route() is by_floats
        ones = torch.full((3, 64), LIMIT, dtype=torch.int8)
        assert integer_product(ones, ones).tolist() == [[64 * LIMIT**2] * 3] * 3
    finally:
        int8_product.best_route.cache_clear()


@pytest.mark.slow
def test_a_processor_without_vnni_takes_the_exact_route():
    """oneDNN can be told to use no newer instructions than a processor of that kind has."""
    code = (
        "import torch; from gaugeblock.reference.hybrid.int8_product import best_route, integer_product\n"
        "x = torch.full((4, 576), 127, dtype=torch.int8)\n"
        "assert (integer_product(x, x) == 576 * 127**2).all(); print(best_route().__name__)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == by_floats.__name__
