"""The adapters pass each op's inputs on as the library's documentation wants them, and claim no more than it has."""

import importlib
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch

from gaugeblock.conformance.bench.correctness import outputs_of, shares
from gaugeblock.conformance.kernels.judging import judge
from gaugeblock.fixtures.errors import EnvironmentFault
from gaugeblock.fixtures.peers import LIBRARIES
from gaugeblock.fixtures.targets.kernels import KernelTarget, load_kernels
from gaugeblock.kernels.arguments import Unclaimed
from gaugeblock.kernels.contract import load_contracts
from gaugeblock.kernels.rope import _in_float64

from . import libraries

CONTRACTS = load_contracts()
FLASHINFER = ("add_rmsnorm", "silu_and_mul", "gelu_and_mul", "rope", "softmax", "decode_attention", "extend_attention")
SGL = ("add_rmsnorm", "silu_and_mul", "gelu_and_mul", "int8_linear")
ROUNDED_AGAIN = 3.0  # the stand-ins compute in fp32 in another order; a wrong argument is off by far more


def adapter(name, monkeypatch):
    libraries.install(monkeypatch, getattr(libraries, name)())
    full = f"gaugeblock.fixtures.peers.{name}"
    sys.modules.pop(full, None)
    module = importlib.import_module(full)
    del sys.modules[full]  # the next import is not to find the stand-in
    if name == "sgl_kernel":
        ops = SimpleNamespace(
            sgl_kernel=SimpleNamespace(fused_add_rmsnorm=SimpleNamespace(default=libraries.add_rmsnorm))
        )
        monkeypatch.setattr(module, "torch", SimpleNamespace(**vars(torch) | {"ops": ops}))
    return KernelTarget(name, {op: getattr(module, op) for op in CONTRACTS if hasattr(module, op)}, "cpu")


def judged(target, op, rows=3):
    """Run every dtype and variant that the adapter claims; return the labels of those."""
    claimed = []
    for case in op.cases(rows, 64, 5):
        try:
            outputs = target.run(op, case)
        except Unclaimed:
            continue
        judge(op, case, outputs, allowed=ROUNDED_AGAIN)
        claimed.append(case)
    return claimed


@pytest.mark.parametrize("name", FLASHINFER)
def test_flashinfer(name, monkeypatch):
    claimed = judged(adapter("flashinfer", monkeypatch), CONTRACTS[name])
    expected = {torch.float32} if name == "softmax" else {torch.float16, torch.bfloat16}
    assert {case.dtype for case in claimed} == expected


@pytest.mark.parametrize("name", SGL)
def test_sgl_kernel(name, monkeypatch):
    claimed = judged(adapter("sgl_kernel", monkeypatch), CONTRACTS[name])
    expected = set(CONTRACTS[name].dtypes) - ({torch.float32} if name == "int8_linear" else set())
    assert {case.dtype for case in claimed} == expected


def test_sgl_kernel_turns_by_the_table_in_the_dtype_of_q(monkeypatch):
    """fp32 alone is judged: in half precision SGLang's own cast of the table exceeds the contract's bound."""
    op = CONTRACTS["rope"]
    target = adapter("sgl_kernel", monkeypatch)
    for variant in op.variants:
        case = op.make(3, 64, torch.float32, 5, "normal", **variant)
        judge(op, case, target.run(op, case), allowed=ROUNDED_AGAIN)


def test_the_bench_shows_the_roundings_of_sgl_kernels_rope_and_nothing_else(monkeypatch):
    """Thousands of bounds where two products nearly cancel: one fp32 rounding is 2¹⁶ times smaller than one of bf16."""
    op = CONTRACTS["rope"]
    rope = adapter("sgl_kernel", monkeypatch).functions["rope"]
    rope.__globals__["library"].rotary_embedding = libraries.rotary_in_storage_dtype
    case = op.workload("cpu", torch.bfloat16, tokens=1024, q_heads=4, k_heads=2, dim=128)
    outputs = outputs_of(op, case, rope)
    again = outputs_of(op, case, rope)
    used = shares(op, case, outputs)
    oracle, magnitudes = op.oracle(case), _in_float64(case, magnitudes=True)
    for name, result in outputs.items():
        assert torch.equal(result, again[name])  # it turned a copy, once
        assert 100 < used[name] < 2**15  # two roundings of 2⁻⁹ each over two of 2⁻²⁴
        allowed = 3 * 2.0**-8 * magnitudes[name]  # the table, the products, their sum: 2⁻⁹ each, and one to spare
        assert ((result.double() - oracle[name]).abs() <= allowed).all()


def test_what_a_library_overwrites_is_a_copy(monkeypatch):
    op = CONTRACTS["add_rmsnorm"]
    for name in ("flashinfer", "sgl_kernel"):
        target = adapter(name, monkeypatch)
        case = op.make(3, 64, torch.bfloat16, 5)
        before = {key: tensor.clone() for key, tensor in case.inputs.items()}
        target.call(op, case.inputs, case.params)
        assert all(torch.equal(before[key], tensor) for key, tensor in case.inputs.items())


def test_the_timed_call_works_in_place_on_its_own_copies(monkeypatch):
    op = CONTRACTS["add_rmsnorm"]
    function = adapter("flashinfer", monkeypatch).functions["add_rmsnorm"]
    case = op.make(3, 64, torch.bfloat16, 5)
    before = case.inputs["x"].clone()
    call = function.timed(*case.inputs.values(), **case.params)
    assert call() is None
    assert torch.equal(case.inputs["x"], before)


def test_contexts_in_pages_are_listed(monkeypatch):
    adapter("flashinfer", monkeypatch)
    from gaugeblock.fixtures.peers._forms import page_lists

    table = torch.tensor([[7, 3, 9], [2, 5, 0], [4, 0, 0]], dtype=torch.int32)
    lists = page_lists(table, torch.tensor([33, 32, 1], dtype=torch.int32), 16)
    assert lists.indptr.tolist() == [0, 3, 5, 6]
    assert lists.indices.tolist() == [7, 3, 9, 2, 5, 4]
    assert lists.last_page.tolist() == [1, 16, 1]


@pytest.mark.parametrize(
    ("name", "op", "rows", "size", "variant"),
    [
        ("flashinfer", "silu_and_mul", 3, 63, {}),
        ("flashinfer", "add_rmsnorm", 3, 64, {}),
        ("sgl_kernel", "int8_linear", 3, 63, {}),
        ("flashinfer", "decode_attention", 3, 63, {"heads": (3, 1), "head_dim": 80}),
    ],
)
def test_a_form_that_the_library_lacks_is_unclaimed(name, op, rows, size, variant, monkeypatch):
    target = adapter(name, monkeypatch)
    contract = CONTRACTS[op]
    dtype = torch.float32 if op == "add_rmsnorm" else torch.bfloat16
    case = contract.make(rows, size, dtype, 5, "normal", **variant)
    with pytest.raises(Unclaimed):
        target.run(contract, case)


def test_integers_reach_the_library(monkeypatch):
    """A wrong dtype is no form that the library lacks: its own answer is what the checks want to see."""
    from gaugeblock.fixtures.peers._forms import HALF, offered_dtypes

    offered_dtypes(torch.zeros(1, dtype=torch.int32), HALF)
    with pytest.raises(Unclaimed):
        offered_dtypes(torch.zeros(1), HALF)


def test_a_sampler_with_its_own_randomness_says_so(monkeypatch):
    target = adapter("flashinfer", monkeypatch)
    op = CONTRACTS["sampling"]
    assert target.own_randomness(op)
    case = op.make(3, 64, torch.float32, 5)
    case.inputs["min_p"].zero_()
    assert target.run(op, case)["token"].dtype == torch.int64
    case.inputs["min_p"].fill_(0.1)
    with pytest.raises(Unclaimed, match="min-p"):
        target.run(op, case)


@pytest.mark.parametrize("name", ["sgl_kernel", "flashinfer", "liger_kernel"])
def test_without_its_library_an_adapter_says_what_is_missing(name):
    if importlib.util.find_spec(name):
        pytest.skip(reason=f"{name} is installed: nothing is missing here")
    with pytest.raises(EnvironmentFault, match=rf"No module named '{name}.*: pip install {LIBRARIES[name]}"):
        load_kernels(f"gaugeblock.fixtures.peers.{name}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("name", ["silu_and_mul", "add_rmsnorm"])
def test_torch_compile_is_a_target_like_any_other(name):
    target = load_kernels("gaugeblock.fixtures.peers.torch_compile")
    assert not target.takes_outs(CONTRACTS[name])
    assert set(target.functions) == set(CONTRACTS)
    op = CONTRACTS[name]
    case = op.make(3, 64, torch.float32, 5)
    judge(op, case, target.run(op, case))
