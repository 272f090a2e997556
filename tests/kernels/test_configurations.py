"""Configurations: all that may be chosen are declared; KER-016 runs every one, and says which really ran."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from gaugeblock.conformance.kernels import test_ker_016_configurations as check
from gaugeblock.fixtures.targets.kernels import KernelTarget, load_kernels
from gaugeblock.kernels import (
    add_rmsnorm,
    decode_attention,
    extend_attention,
    int8_linear,
    ln_linear,
    rope,
    sampling,
    silu_and_mul,
    softmax,
)
from gaugeblock.kernels._int8_linear_tiles import early_for, hopper_for
from gaugeblock.kernels.arguments import DTYPES
from gaugeblock.kernels.contract import load_contracts
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED

OP = load_contracts()["silu_and_mul"]

COUNTS = (1, 2, 4, 5, 16, 17, 32, 33, 63, 64, 65, 128, 129, 512, 513, 1000, 1024, 4097, 8192, 16384, 32768, 65536)


def extend_cases():
    card = torch.cuda.is_available()  # only a card says whether it takes pages of 16 by another kernel
    for dtype in DTYPES:
        for page_size in (1, 16) if card else (1,):
            yield extend_attention.make(1, 20, dtype, page_size=page_size).to("cuda" if card else "cpu").inputs


CHOSEN = {
    "add_rmsnorm": lambda: map(add_rmsnorm.config_for, COUNTS),
    "decode_attention": lambda: map(decode_attention.config_for, DTYPES),
    "extend_attention": lambda: (
        extend_attention.config_for(i["q"], i["k_cache"], i["v_cache"]) for i in extend_cases()
    ),
    "gelu_and_mul": lambda: (silu_and_mul.config_for(rows * 4096) for rows in COUNTS),
    "int8_linear": lambda: (
        config
        for rows in COUNTS
        for columns in (72, 2049, 4096, 6145, 8193, 16384)
        for config in (int8_linear.config_for(rows, columns, 4096), early_for(rows, columns), hopper_for(rows, columns))
        if config is not None
        and not (INTERPRETED and isinstance(config, int8_linear.EarlyConfig | int8_linear.HopperConfig))
    ),
    "ln_linear": lambda: (ln_linear.config_for(rows, dtype) for rows in COUNTS for dtype in DTYPES),
    "rope": lambda: map(rope.config_for, COUNTS),
    "sampling": lambda: map(sampling.config_for, COUNTS),
    "silu_and_mul": lambda: (silu_and_mul.config_for(rows * 4096) for rows in COUNTS),
    "softmax": lambda: (softmax.config_for(columns, size) for columns in (*COUNTS, 128256) for size in (2, 4)),
}
"""What the op's choice gives over all its thresholds, by op."""


def undeclared():
    """Return the configurations that an op may choose and does not declare."""
    ops = load_contracts()
    return {name: found for name in CHOSEN if (found := set(CHOSEN[name]()) - set(ops[name].configs))}


def test_every_configuration_that_may_be_chosen_is_declared():
    assert set(CHOSEN) == set(load_contracts())
    assert undeclared() == {}


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU the test above sees what is chosen there")
def test_what_may_be_chosen_on_a_gpu_is_declared_too():
    script = "import runpy, sys; print(runpy.run_path(sys.argv[1])['undeclared']())"
    command = [sys.executable, "-W", "ignore", "-c", script, __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "{}\n"


def test_long_rows_have_more_warps(monkeypatch):
    monkeypatch.setattr(add_rmsnorm, "INTERPRETED", False)
    chosen = {hidden: add_rmsnorm.config_for(hidden) for hidden in (1, 1000, 1024, 1025, 4096, 4097, 8192, 16384)}
    assert chosen == {
        **dict.fromkeys((1, 1000, 1024), (1024, 2)),
        **dict.fromkeys((1025, 4096), (1, 4)),
        **dict.fromkeys((4097, 8192, 16384), (1, 32)),
    }


def seen(kernels, op):
    """Return the labels of the cases in KER-016's evidence."""
    evidence = []
    check.test_ker_016(kernels=kernels, op=op, record_property=lambda name, value: evidence.append(value))
    return [case["case"] for case in evidence[0]["cases"]]


@pytest.mark.parametrize("every", [True, False])
def test_configurations_and_dtypes_that_are_run(every, monkeypatch):
    monkeypatch.setitem(check.CASES, DEVICE, None if every else 1)
    ran = []

    def watched(x, *, out=None, config=None):
        ran.append((config, x.dtype))
        return OP.kernel(x, out=out, config=config)

    watched.configs = OP.configs
    told = seen(KernelTarget("watched", {OP.name: watched}, DEVICE), OP)
    ran = [pair for pair in ran if pair[0] is not None]  # the others ask what is offered
    pairs = {(config, dtype) for config in OP.configs for dtype in OP.dtypes}
    assert set(ran) <= pairs
    assert {config for config, _ in ran} == set(OP.configs)
    assert len(set(ran)) == (len(pairs) if every else len(OP.configs))
    assert len(told) == len(ran)
    assert all(str(config) in label and str(dtype) in label for (config, dtype), label in zip(ran, told, strict=True))


def test_a_configuration_whose_place_another_takes_is_not_counted(monkeypatch):
    op = load_contracts()["extend_attention"]
    tiles, hopper = extend_attention.TILES, extend_attention.HOPPER
    small = replace(op, configs=(tiles, hopper), sizes=replace(op.sizes, usual=20))
    told = seen(load_kernels(None), small)
    assert any(str(tiles) in label for label in told)
    assert [label for label in told if str(hopper) in label and "page 1 " in label] == []
    if INTERPRETED:
        assert [label for label in told if str(hopper) in label] == []


def test_tiles_of_ln_linear_fit_what_they_compute():
    fits = load_contracts()["ln_linear"].fits
    wide, odd = (ln_linear.make(2, hidden, torch.bfloat16, columns=72) for hidden in (64, 63))
    single = ln_linear.make(2, 64, torch.float32, columns=72)
    plain, *others = ln_linear.CONFIGS
    assert [fits(case, plain) for case in (wide, odd, single)] == [True, True, True]
    assert {tuple(fits(case, config) for case in (wide, odd, single)) for config in others} == {(True, False, False)}


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
