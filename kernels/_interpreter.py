"""Triton's interpreter without the bookkeeping that it repeats for every operation of a kernel.

An interpreted operation takes some 40 µs whatever its tile: types of tiles and tuples of shapes are made anew, two
operands of one type are promoted and broadcast. The stand-ins here compute nothing: each returns what the function in
whose place it stands returned for the same arguments before, or its arguments where that function would hand them back
as they are; a kernel takes two thirds of the time, its bits stay. A Triton that lacks such a function, or whose
function has other parameters, keeps its own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from triton.language import core

Function = Callable[..., Any]


@dataclass(frozen=True)
class StandIn:
    """``make(original)`` returns what takes the place of ``name`` during a launch, if it has these parameters.

    ``owner``: a module, or ``module:class``.
    """

    owner: str
    name: str
    parameters: tuple[str, ...]
    make: Callable[[Function], Function]


def _numpy_types(original: Function) -> Function:
    """Look a type up by its name, in place of a new table of all types for every look-up."""
    known: dict[str, Any] = {}

    def numpy_type(tt_dtype: Any) -> Any:
        found = known.get(tt_dtype.name)
        if found is None:
            found = known[tt_dtype.name] = original(tt_dtype)
        return found

    return numpy_type


def _block_types(original: Function) -> Function:
    """Make the type of a tile of one element type and shape once."""
    known: dict[tuple[int, tuple[Any, ...]], dict[str, Any]] = {}

    def init(self: Any, element_ty: Any, shape: Any) -> None:
        sides = tuple(side.value if type(side) is core.constexpr else side for side in shape)
        key = id(element_ty), sides  # the type stays alive, and its id its own, in the attributes that are kept
        found = known.get(key)
        if found is None:
            original(self, element_ty, shape)
            known[key] = dict(vars(self))
        else:
            vars(self).update(found)

    return init


def _tensors(original: Function) -> Function:
    """Make the shape of a tensor, a tuple of constants, once."""
    known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def init(self: Any, handle: Any, type: Any) -> None:  # noqa: A002 # Triton's own name, callers may use it
        sides = tuple(type.shape.values) if type.is_block() else ()
        found = known.get(sides)
        if found is None:
            original(self, handle, type)
            known[sides] = self.shape, self.numel
        else:
            self.handle, self.type, self.dtype = handle, type, type.scalar
            self.shape, self.numel = found

    return init


def _same_shape(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if left.is_block() != right.is_block():
        return False
    return not left.is_block() or bool(left.shape.values == right.shape.values)


def _broadcasts(original: Function) -> Function:
    """Leave two operands of one shape alone."""

    def broadcast_impl_value(self: Any, lhs: Any, rhs: Any) -> Any:
        return (lhs, rhs) if _same_shape(lhs.type, rhs.type) else original(self, lhs, rhs)

    return broadcast_impl_value


def _promotions(original: Function) -> Function:
    """Leave two tiles of one type and shape alone; a division may still promote them, a pointer is refused."""

    def binary_op_type_checking_impl(
        self: Any,
        lhs: Any,
        rhs: Any,
        allow_lhs_ptr: bool = False,
        allow_rhs_ptr: bool = False,
        arithmetic_check: bool = True,
        div_or_mod: bool = False,
    ) -> Any:
        both = type(lhs) is core.tensor and type(rhs) is core.tensor and not div_or_mod
        if both and lhs.dtype is rhs.dtype and not lhs.dtype.is_ptr() and _same_shape(lhs.type, rhs.type):
            return lhs, rhs
        return original(self, lhs, rhs, allow_lhs_ptr, allow_rhs_ptr, arithmetic_check, div_or_mod)

    return binary_op_type_checking_impl


def _common_types(original: Function) -> Function:
    """Find the type that two operands are promoted to once for each pair of types."""
    known: dict[tuple[Any, ...], Any] = {}

    def computation_type_impl(
        self: Any, a_ty: Any, a_is_scalar: bool, b_ty: Any, b_is_scalar: bool, div_or_mod: bool
    ) -> Any:
        key = a_ty.name, a_is_scalar, b_ty.name, b_is_scalar, div_or_mod
        found = known.get(key)
        if found is None:
            found = known[key] = original(self, a_ty, a_is_scalar, b_ty, b_is_scalar, div_or_mod)
        return found

    return computation_type_impl


def _casts(original: Function) -> Function:
    """Leave a tensor of the type asked for alone before types are compared by their names."""

    def cast(self: Any, input: Any, dst_ty: Any, fp_downcast_rounding: Any = None) -> Any:  # noqa: A002 # as above
        return input if input.dtype is dst_ty.scalar else original(self, input, dst_ty, fp_downcast_rounding)

    return cast


def _float_conversions(original: Function) -> Function:
    """Convert +0 without taking it apart: what a load of bf16 gives for masked elements, a whole tile of it."""

    def convert_float(input: Any, input_dtype: Any, output_dtype: Any, rounding_mode: Any) -> Any:  # noqa: A002 # as above
        if input.view(f"u{input.itemsize}").any():
            return original(input, input_dtype, output_dtype, rounding_mode)
        return np.zeros(input.shape, f"u{output_dtype.primitive_bitwidth // 8}")

    return convert_float


def _builtin_patches(original: Function) -> Function:
    """Find the functions of a module that a launch has to wrap by their names of last time."""
    interpreter = importlib.import_module(INTERPRETER)

    def patch_builtin(pkg: Any, builder: Any, scope: Any) -> None:
        for name in _builtins_of(pkg):
            interpreter._patch_attr(pkg, name, getattr(pkg, name), builder, scope)

    return patch_builtin


@cache
def _builtins_of(package: Any) -> tuple[str, ...]:
    return tuple(name for name, member in inspect.getmembers(package) if core.is_builtin(member))


SEMANTIC = "triton.language.semantic:TritonSemantic"

INTERPRETER = "triton.runtime.interpreter"

STAND_INS = (
    StandIn(INTERPRETER, "_get_np_dtype", ("tt_dtype",), _numpy_types),
    StandIn(
        INTERPRETER,
        "_convert_float",
        ("input", "input_dtype", "output_dtype", "rounding_mode"),
        _float_conversions,
    ),
    StandIn(INTERPRETER, "_patch_builtin", ("pkg", "builder", "scope"), _builtin_patches),
    StandIn("triton.language.core:block_type", "__init__", ("self", "element_ty", "shape"), _block_types),
    StandIn("triton.language.core:tensor", "__init__", ("self", "handle", "type"), _tensors),
    StandIn(SEMANTIC, "broadcast_impl_value", ("self", "lhs", "rhs"), _broadcasts),
    StandIn(SEMANTIC, "cast", ("self", "input", "dst_ty", "fp_downcast_rounding"), _casts),
    StandIn(
        SEMANTIC,
        "computation_type_impl",
        ("self", "a_ty", "a_is_scalar", "b_ty", "b_is_scalar", "div_or_mod"),
        _common_types,
    ),
    StandIn(
        SEMANTIC,
        "binary_op_type_checking_impl",
        ("self", "lhs", "rhs", "allow_lhs_ptr", "allow_rhs_ptr", "arithmetic_check", "div_or_mod"),
        _promotions,
    ),
)


@contextmanager
def lean() -> Iterator[None]:
    """Let the stand-ins serve one launch; what they know ends with it."""
    with ExitStack() as stack:
        for owner, stand_in in _applicable():
            original = getattr(owner, stand_in.name)
            stack.callback(setattr, owner, stand_in.name, original)
            setattr(owner, stand_in.name, stand_in.make(original))
        yield


@cache
def _applicable() -> tuple[tuple[Any, StandIn], ...]:
    """Return the stand-ins whose place this Triton has, each with the module or class that holds it."""
    found = []
    for stand_in in STAND_INS:
        module, _, inner = stand_in.owner.partition(":")
        owner: Any = importlib.import_module(module)
        owner = getattr(owner, inner, None) if inner else owner
        original = getattr(owner, stand_in.name, None)
        if original is not None and tuple(inspect.signature(original).parameters) == stand_in.parameters:
            found.append((owner, stand_in))
    return tuple(found)
