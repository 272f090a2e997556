"""LayerNorm + linear + activation: the oracle in fifty digits, the bound, refusals, several tiles, compiled code."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal, localcontext

import pytest
import torch

from gaugeblock.kernels import _ln_linear_tiles as tiles
from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.bounds import budget_used
from gaugeblock.kernels.ln_linear import ACTIVATIONS, CONFIGS, CONTRACT, ln_linear, make
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED


def decimal_erf(z):
    term, total, n = z, z, 0
    while abs(term) > Decimal(10) ** -45:
        n += 1
        term = -term * z * z / n
        total += term / (2 * n + 1)
    return 2 * total / Decimal("3.14159265358979323846264338327950288419716939937511").sqrt()


def decimal_activation(z, name):
    if name == "gelu":
        return z * (1 + decimal_erf(z / Decimal(2).sqrt())) / 2
    if name == "gelu_tanh":
        two_over_pi = 2 / Decimal("3.14159265358979323846264338327950288419716939937511")
        v = two_over_pi.sqrt() * (z + Decimal("0.044715") * z**3)
        return z * (1 - 2 / ((2 * v).exp() + 1) + 1) / 2
    if name == "silu":
        return z / (1 + (-z).exp())
    return max(z, Decimal(0)) if name == "relu" else z


@pytest.mark.parametrize("kind", ["normal", "small", "offset"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_oracle_is_the_formula_in_fifty_digits(activation, kind):
    case = make(2, 5, torch.float32, 31, kind, activation=activation, columns=4)
    oracle = CONTRACT.oracle(case)["out"]
    values = {name: [Decimal(v) for v in t.flatten().tolist()] for name, t in case.inputs.items()}
    with localcontext() as context:
        context.prec = 50
        for row in range(2):
            x = values["x"][5 * row : 5 * row + 5]
            mean = sum(x) / 5
            deviation = (sum((v - mean) ** 2 for v in x) / 5 + Decimal(case.params["eps"])).sqrt()
            pairs = zip(x, values["ln_weight"], values["ln_bias"], strict=True)
            normed = [(v - mean) / deviation * g + b for v, g, b in pairs]
            for n in range(4):
                weight = values["weight"][5 * n : 5 * n + 5]
                z = sum(a * w for a, w in zip(normed, weight, strict=True)) + values["bias"][n]
                error = abs(Decimal(oracle[row, n].item()) - decimal_activation(z, activation))
                assert error <= Decimal("1e-12") * (1 + abs(z))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.block_m}x{c.block_n}x{c.block_k}")
@pytest.mark.parametrize("activation", ["gelu_tanh", "relu"])
def test_several_tiles_in_both_directions(config, activation):
    dtype = torch.float32 if config == tiles.PLAIN else torch.bfloat16
    for rows, columns in ((150, 264), (129, 520)):  # more than one tile row and column; the last ones are not full
        case = make(rows, 72, dtype, 32, "normal", activation=activation, columns=columns)
        inputs = [tensor.to(DEVICE) for tensor in case.inputs.values()]
        oracle = CONTRACT.oracle(case)
        out = ln_linear(*inputs, **case.params, config=replace(config, group=2)).cpu()
        share = budget_used(out, oracle["out"], CONTRACT.bound(case, oracle)["out"])
        assert share.max().item() <= 1, f"{config}: {int((share > 1).sum())} of {share.numel()} out of bound"


def test_descriptors_are_used_only_where_rows_are_aligned(monkeypatch):
    used = []
    original = tiles._launch_bulk
    monkeypatch.setattr(tiles, "_launch_bulk", lambda *args: (used.append(args[0].shape), original(*args)))
    for hidden, columns in ((64, 48), (63, 48), (64, 47)):
        case = make(3, hidden, torch.float16, 33, columns=columns)
        oracle = CONTRACT.oracle(case)
        out = ln_linear(*[t.to(DEVICE) for t in case.inputs.values()], **case.params, config=tiles.BULK).cpu()
        assert budget_used(out, oracle["out"], CONTRACT.bound(case, oracle)["out"]).max().item() <= 1
    assert used == [(3, 64)]


def test_relu_bound_counts_the_error_on_either_side_of_the_kink():
    case = make(63, 64, torch.bfloat16, 3, activation="relu", columns=320)
    oracle = CONTRACT.oracle(case)
    z = CONTRACT.oracle(replace(case, params={**case.params, "activation": "none"}))["out"]
    bound = CONTRACT.bound(case, oracle)["out"]
    at = z[z < 0].argmax()  # just below zero: a rounded x̂ may put it above
    assert bound[z < 0][at].item() > -z[z < 0][at].item() > 0


def test_a_constant_row_gives_the_bias_of_the_norm_alone():
    case = make(2, 40, torch.float32, 34, activation="none")
    x = torch.full((2, 40), 7.0, device=DEVICE)
    rest = [tensor.to(DEVICE) for name, tensor in case.inputs.items() if name != "x"]
    out = ln_linear(x, *rest, activation="none").cpu().double()
    right = case.inputs["ln_bias"].double() @ case.inputs["weight"].double().t() + case.inputs["bias"].double()
    assert (out - right).abs().max().item() < 1e-5


def weights(hidden=8, columns=4, dtype=torch.float32):
    shapes = {"ln_weight": (hidden,), "ln_bias": (hidden,), "weight": (columns, hidden), "bias": (columns,)}
    return {name: torch.ones(shape, dtype=dtype, device=DEVICE) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "gelu_fast"}, "activation is 'gelu_fast', expected one of gelu_tanh, gelu, silu, relu, none"),
        ({"eps": 0.0}, "eps is 0.0, must be positive"),
        ({"eps": math.nan}, "eps is nan"),
        ({"x": torch.ones(3, 7, device=DEVICE)}, r"x has shape \(3, 7\), expected \(3, 8\)"),
        ({"x": torch.ones((), device=DEVICE)}, r"expected \[…, hidden\] and \[columns, hidden\]"),
        ({"weight": torch.ones(8, device=DEVICE)}, r"weight \(8,\), expected"),
        ({"ln_bias": torch.ones(1, device=DEVICE)}, r"ln_bias has shape \(1,\), expected \(8,\)"),
        ({"bias": torch.ones(4, device=DEVICE, dtype=torch.half)}, "bias is torch.float16 but x is torch.float32"),
        ({"out": torch.ones(3, 5, device=DEVICE)}, r"out has shape \(3, 5\), expected \(3, 4\)"),
        ({"out": torch.ones(4, 3, device=DEVICE).t()}, "out has strides .* must be contiguous"),
        ({"x": torch.ones(3, 0, device=DEVICE), **weights(0)}, "last dimension of weight is 0"),
    ],
)
def test_refusals_name_the_argument(change, message):
    arguments = {"x": torch.ones(3, 8, device=DEVICE), **weights(), **change}
    with pytest.raises(Refused, match=message):
        ln_linear(**arguments)


def test_no_columns_and_no_rows_give_empty_results():
    assert ln_linear(torch.ones(3, 8, device=DEVICE), **weights(columns=0)).shape == (3, 0)
    assert ln_linear(torch.ones(2, 0, 8, device=DEVICE), **weights()).shape == (2, 0, 4)


def test_modelled_cost_counts_each_tensor_once():
    case = make(6, 64, torch.bfloat16, 35, columns=32)
    assert CONTRACT.bytes_moved(case) == 2 * (6 * 64 + 2 * 64 + 32 * 64 + 32 + 6 * 32)
    assert CONTRACT.flops(case) == 6 * (2 * 64 * 32 + 8 * 64 + 6 * 32)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="the library's epilogues run on a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["gelu_tanh", "relu", "none"])
def test_large_batches_go_to_the_library_within_the_bound(activation, dtype, monkeypatch):
    called = []
    original = tiles._call_library
    monkeypatch.setattr(tiles, "_call_library", lambda *args: (called.append(args[4]), original(*args)))
    case = make(1030, 264, dtype, 36, "normal", activation=activation, columns=4104)
    case.inputs["x"][7, 5] = math.nan
    out = ln_linear(*[tensor.to(DEVICE) for tensor in case.inputs.values()], **case.params).cpu()
    oracle = CONTRACT.oracle(case)
    share = budget_used(out, oracle["out"], CONTRACT.bound(case, oracle)["out"])
    share[7] = 0
    assert called == [activation]
    assert share.max().item() <= 1
    assert out[7].isnan().all()


SCRIPT = """
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels import _ln_linear_kernels as kernels, _ln_linear_tiles as tiles

def compiled(kernel, constants, options, element, descriptors):
    def kind(name):
        if name in constants: return "constexpr"
        if name in descriptors: return f"tensordesc<{element}{descriptors[name]}>"
        return f"*{element}" if name.endswith("_ptr") else "fp32" if name == "eps" else "i32"
    names = kernel.arg_names
    aligned = [i for i, n in enumerate(names) if n.endswith("_ptr")]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(kernel, {n: kind(n) for n in names}, constants, attributes)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    return "wgmma" in ptx, ".local" in ptx, sorted(set(re.findall(r"(?:ld|st)\\.global\\.[\\w.]*v4[\\w.]*", ptx)))

norm = {"ROWS": 1, "COLS": 4096, "WIDE": True, "EARLY": True}
print(compiled(kernels.normalise_kernel, norm, {"num_warps": 8}, "bf16", {}))
for config in tiles.CONFIGS:
    element = "fp32" if config == tiles.PLAIN else "bf16"
    kernel, constants, descriptors = tiles.constants_for(config, 4096, "gelu_tanh", programs=132 if config.bulk else 0)
    options = {"num_warps": config.warps, "num_stages": config.stages, "launch_pdl": config.early}
    print(compiled(kernel, constants, options, element, descriptors))
"""


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU every configuration is compiled and run by KER-016")
def test_every_configuration_compiles_for_the_gpu_without_local_memory(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    norm, *products = [eval(line) for line in run.stdout.splitlines()]  # printed by the script above
    assert norm == (False, False, ["ld.global.v4.b32", "st.global.v4.b32"])
    assert len(products) == len(CONFIGS)
    for config, (tensor_cores, local_memory, _) in zip(CONFIGS, products, strict=True):
        assert not local_memory, f"{config} spills"
        assert tensor_cores == (config.block_m >= 64 and config != tiles.PLAIN), config
