"""What an operator must move and compute, modelled from the shapes, strides and dtypes of its arguments.

Every input element that is stored (a broadcast dimension counts once) is read once and every output element written
once. A trace names no outputs, so their shapes follow from the operator's rule. An operator without a rule has no
model: its bytes are unknown, not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from gaugeblock.conformance.profiling.trace import OpCall

ITEMSIZE = {
    "double": 8,
    "long int": 8,
    "long": 8,
    "float": 4,
    "int": 4,
    "c10::BFloat16": 2,
    "c10::Half": 2,
    "short": 2,
    "bool": 1,
    "signed char": 1,
    "unsigned char": 1,
    "c10::Float8_e4m3fn": 1,
}
FLOATS = ("double", "float", "c10::Half", "c10::BFloat16")


@dataclass(frozen=True)
class Cost:
    """Bytes read and written, and floating-point operations of matrix products (``dtype``: theirs)."""

    bytes: int
    flops: int = 0
    dtype: str = ""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.flops + other.flops, self.dtype or other.dtype)


def cost(call: OpCall) -> Cost | None:
    """Return the cost of the call itself, None when its operator has no rule or its shapes were not recorded."""
    rule = RULES.get(base_name(call.name))
    if rule is None or not call.shapes:
        return None
    try:
        return rule(call)
    except (IndexError, TypeError, ValueError, KeyError):
        return None  # an overload with other arguments than the rule knows


def credited(call: OpCall) -> Iterator[tuple[OpCall, Cost]]:
    """Yield the modelled calls at and below ``call`` that together are its cost: none lies within another.

    A call with a rule stands for what it calls (a product by a Python number converts that number first); only the
    composites, which may dispatch to one kernel or to many, stand back behind their parts.
    """
    own = cost(call)
    if own is not None and base_name(call.name) not in COMPOSITES:
        yield call, own
        return
    parts = [found for child in call.children for found in credited(child)]
    if parts:
        yield from parts
    elif own is not None:
        yield call, own


def total(call: OpCall) -> Cost | None:
    """Return the cost of a call with all below it, None when nothing of it is modelled."""
    parts = [found for _, found in credited(call)]
    return sum(parts[1:], parts[0]) if parts else None


def base_name(name: str) -> str:
    """Return an operator's name without namespace and without the underscore of an in-place form."""
    short = name.removeprefix("aten::")
    return short[:-1] if short.endswith("_") and not short.endswith("__") else short


def shape(call: OpCall, index: int) -> list[int]:
    """Return the dimensions of a tensor argument."""
    dims = call.shapes[index]
    if any(isinstance(size, list) for size in dims):
        raise ValueError(f"argument {index} of {call.name} is a list")
    return list(dims)


def is_tensor(call: OpCall, index: int) -> bool:
    """Whether an argument is one tensor."""
    return index < len(call.dtypes) and call.dtypes[index] in ITEMSIZE and call.values[index : index + 1] in ([""], [])


def itemsize(call: OpCall, index: int = 0) -> int:
    """Return the bytes of an element of a tensor argument."""
    return ITEMSIZE[call.dtypes[index]]


def stored(call: OpCall, index: int) -> int:
    """Return the bytes that a tensor argument occupies: a dimension of stride 0 counts once."""
    dims = shape(call, index)
    strides = call.strides[index] if index < len(call.strides) else []
    if len(strides) == len(dims):
        dims = [size for size, stride in zip(dims, strides, strict=True) if stride != 0 or size == 0]
    return prod(dims) * itemsize(call, index)


def _tensors(call: OpCall) -> list[int]:
    return [i for i in range(len(call.shapes)) if is_tensor(call, i)]


def _pointwise(call: OpCall) -> Cost:
    """All inputs once, and an output of the broadcast shape in the widest dtype (floats before integers)."""
    found = _tensors(call)
    dims = [shape(call, i) for i in found]
    rank = max(map(len, dims))
    padded = [[1] * (rank - len(d)) + d for d in dims]
    out = prod(0 if 0 in sizes else max(sizes) for sizes in zip(*padded, strict=True))
    sized = [i for i in found if shape(call, i)] or found  # a tensor without dimensions does not widen the others
    kinds = [call.dtypes[i] for i in sized]
    widest = next((kind for kind in FLOATS if kind in kinds), kinds[0])
    return Cost(sum(stored(call, i) for i in found) + out * ITEMSIZE[widest])


def _copy(call: OpCall) -> Cost:
    return Cost(stored(call, 0) + stored(call, 1))


def _reduce(call: OpCall) -> Cost:
    """The input once; of the output at least the reduction over the last dimension is assumed."""
    dims = shape(call, 0)
    return Cost(stored(call, 0) + prod(dims[:-1]) * itemsize(call))


def _same(call: OpCall) -> Cost:
    return Cost(sum(stored(call, i) for i in _tensors(call)) + prod(shape(call, 0)) * itemsize(call))


def _fill(call: OpCall) -> Cost:
    return Cost(stored(call, 0))


def _matmul(call: OpCall, first: int = 0) -> Cost:
    """``[…, m, k] × [k, n]``, batched or not, with every argument read once."""
    a, b = shape(call, first), shape(call, first + 1)
    out = [*a[:-1], b[-1]]
    read = sum(stored(call, i) for i in range(first + 2) if is_tensor(call, i))
    return Cost(read + prod(out) * itemsize(call, first), 2 * prod(out) * a[-1], call.dtypes[first])


def _linear(call: OpCall) -> Cost:
    """``[…, k] × [n, k]ᵀ`` and a bias."""
    x, weight = shape(call, 0), shape(call, 1)
    out = prod(x[:-1]) * weight[0]
    read = sum(stored(call, i) for i in _tensors(call))
    return Cost(read + out * itemsize(call), 2 * out * x[-1], call.dtypes[0])


def _int_mm(call: OpCall) -> Cost:
    found = _matmul(call)
    m, n = shape(call, 0)[0], shape(call, 1)[1]
    return Cost(found.bytes + 3 * m * n, found.flops, found.dtype)  # the output is int32


def _cat(call: OpCall) -> Cost:
    """Both ways; the trace does not name the dtype of a list, so that of the whole trace is put there by the reader."""
    return Cost(2 * sum(prod(dims) for dims in call.shapes[0]) * itemsize(call))


def _gather(call: OpCall) -> Cost:
    """Rows of a table: the indices, the rows read, the rows written."""
    index = next(i for i in _tensors(call) if i > 0)
    rows = prod(shape(call, index))
    return Cost(stored(call, index) + 2 * rows * prod(shape(call, 0)[1:]) * itemsize(call))


def _attention(call: OpCall) -> Cost:
    """q, k, v and the output once; under a causal mask half of the score matrix is computed."""
    q, k, v = shape(call, 0), shape(call, 1), shape(call, 2)  # [batch, heads, tokens, head_dim]
    out = prod(q[:-1]) * v[-1]
    causal = "True" in call.values[3:]
    work = 2 * prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
    read = sum(stored(call, i) for i in (0, 1, 2))
    return Cost(read + out * itemsize(call), work // 2 if causal and q[-2] > 1 else work, call.dtypes[0])


# fmt: off
POINTWISE = (
    "abs", "add", "bitwise_and", "bitwise_not", "clamp", "cos", "div", "dropout", "eq", "exp", "ge", "gelu", "gt", "le",
    "log", "logical_and", "logical_not", "logical_or", "lt", "masked_fill", "maximum", "minimum", "mul", "ne", "neg",
    "pow", "reciprocal", "relu", "round", "rsqrt", "sigmoid", "silu", "sin", "sqrt", "square", "sub", "tanh", "where",
)
# fmt: on
SAME = ("_softmax", "_log_softmax", "native_layer_norm", "_fused_rms_norm", "rms_norm", "cumsum", "sort", "topk")
"""Operators whose output has the shape of their first input, or less."""

RULES: dict[str, Callable[[OpCall], Cost]] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(["sum", "amax", "amin", "argmax", "max", "prod", "any", "all"], _reduce),
    "mean": _reduce,
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(["fill", "zero"], _fill),
    **dict.fromkeys(["mm", "bmm"], _matmul),
    **dict.fromkeys(["addmm", "baddbmm"], lambda call: _matmul(call, 1)),
    **dict.fromkeys(["embedding", "index_select"], _gather),
    **dict.fromkeys(["cat", "stack"], _cat),
    "linear": _linear,
    "_int_mm": _int_mm,
    "copy": _copy,
}
COMPOSITES = frozenset({"linear", "scaled_dot_product_attention", "_scaled_dot_product_attention_math", "rms_norm"})
for _name in (
    "scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_attention_math",
):
    RULES[_name] = _attention


def name_list_dtypes(calls: list[OpCall]) -> None:
    """Give the tensor lists of ``cat`` and ``stack`` the floating dtype of the call before them.

    A trace does not name it; the neighbour that made the operands has it.
    """
    last = "float"
    for root in calls:
        for call in root.walk():
            known = next((kind for kind in call.dtypes if kind in FLOATS), None)
            if known is not None and call.shapes and any(call.shapes):
                last = known
            elif call.dtypes and call.dtypes[0] in ("TensorList", "GenericList"):
                call.dtypes = [last, *call.dtypes[1:]]
