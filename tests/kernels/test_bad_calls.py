"""When a refusal is clear: it names the argument, its shape, its dtype or its device, in whole words."""

import pytest
import torch

from gaugeblock.conformance.kernels.bad_calls import BadCall, bad_calls
from gaugeblock.kernels.contract import load_contracts

OPS = load_contracts()


def bad(wrong, tensor, argument="x"):
    return BadCall(argument, "", {argument: tensor}, {}, wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("dtype", "x must be a float tensor"),
        ("dtype", "torch.int32 is not supported"),
        ("dtype", "expected scalar type Half but found Int"),
        ("dtype", "\"silu\" not implemented for 'Int'"),
        ("dtype", "CHECK_EQ(a.scalar_type(), b.scalar_type()) failed"),
        ("dtype", "unsupported data type"),
        ("dtype", "mat_a must be Int8"),  # what it wants, where the argument is its second name
        ("shape", "the size of tensor a (63) must match the size of tensor b (64)"),
        ("shape", "mat1 and mat2 shapes cannot be multiplied (4x63 and 64x72)"),
        ("shape", "got torch.Size([4, 63])"),
        ("shape", "hidden must be even, not 63"),
        ("device", "Expected all tensors to be on the same device"),
        ("device", "Pointer argument cannot be accessed from Triton (cpu tensor?)"),
    ],
)
def test_clear_messages(wrong, message):
    dtype = torch.int32 if wrong == "dtype" else torch.float32
    assert bad(wrong, torch.empty(4, 63, dtype=dtype)).said_by(message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("dtype", "index out of range"),
        ("dtype", "unsupported operand type(s) for +"),
        ("dtype", "CUDA error: an illegal memory access was encountered, x"),
        ("dtype", "extra arguments at printing"),
        ("shape", "index out of range"),
        ("shape", "invalid configuration argument 4"),
        ("shape", "shape mismatch"),
        ("shape", "got 163 columns"),
        ("device", "CUDA error: invalid argument"),
        ("device", "index out of range"),
    ],
)
def test_unclear_messages(wrong, message):
    dtype = torch.int32 if wrong == "dtype" else torch.float32
    assert not bad(wrong, torch.empty(4, 63, dtype=dtype)).said_by(message)


def test_a_tensor_without_dimensions_is_named_by_them():
    assert bad("shape", torch.ones(())).said_by("specify a dimension: the tensor has none")
    assert not bad("shape", torch.ones(())).said_by("tuple index out of range")


def test_a_vector_is_named_by_its_length_only_as_a_size():
    vector = torch.ones(1)
    assert bad("shape", vector, "weight").said_by("shape '[1]' is invalid")
    assert not bad("shape", vector, "weight").said_by("argument 1 is bad")


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_every_input_is_given_in_another_dtype_and_on_another_device(op):
    case = op.make(4, op.sizes.small, op.dtypes[-1], 12)
    calls = list(bad_calls(op, case, with_outs=True, device="cpu"))
    for wrong in ("dtype", "device"):
        assert set(case.inputs) <= {call.argument for call in calls if call.wrong == wrong}
    for call in calls:
        changed = {**call.inputs, **call.outs}[call.argument]
        original = case.inputs.get(call.argument)
        assert original is None or (changed.dtype, changed.shape, changed.device) != (
            original.dtype,
            original.shape,
            original.device,
        )


def test_what_may_be_harmless_is_told():
    op = OPS["decode_attention"]
    calls = bad_calls(op, op.make(4, 32, torch.float16, 12), with_outs=True, device="cpu")
    assert {(call.argument, call.what) for call in calls if call.harmless} == {
        ("block_table", "int64"),
        ("seq_lens", "int64"),
    }
