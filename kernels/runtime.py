"""Where the Triton kernels run: compiled on an NVIDIA GPU, or in Triton's interpreter on a CPU.

Every kernel file takes ``jit`` and ``tl`` from here, never from Triton itself, because ``triton.jit`` decides at
decoration: without a GPU this module sets ``TRITON_INTERPRET=1`` before the first kernel is decorated. A value that the
user has set stays (``TRITON_INTERPRET=1`` on a GPU machine means the interpreter). It does not matter whether somebody
imported Triton before: kernels avoid the few functions of ``tl`` that are themselves decorated at Triton's import
(``tl.sum``, ``tl.cdiv``, ``tl.sigmoid``) and use ``tl.reduce`` with :data:`add` or :data:`maximum` instead.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl

from gaugeblock.kernels._interpreter import lean

__all__ = [
    "DEVICE",
    "INTERPRETED",
    "add",
    "inline",
    "jit",
    "maximum",
    "next_power_of_two",
    "overlaps",
    "quiet",
    "runs_on_hopper",
    "tl",
]

INTERPRETED: bool = bool(triton.knobs.runtime.interpret)
"""Whether kernels run in the interpreter: slowly, one program after the other, on CPU tensors."""

DEVICE: str = "cpu" if INTERPRETED else "cuda"
"""The device on which the ops of this package take their tensors."""

jit: Callable[[Callable[..., Any]], Any] = triton.jit
"""Triton's decorator, with a type."""

inline: Callable[[Callable[..., Any]], Any] = (lambda function: function) if INTERPRETED else jit
"""The decorator of what kernels call: interpreted, a plain function, as a nested ``jit`` costs a millisecond a call."""

add = tl.standard._sum_combine
"""The combination of ``tl.reduce`` that the interpreter recognises and hands to numpy as one sum."""

maximum = tl.standard._elementwise_max
"""The same for a maximum, which passes over NaN as the hardware's does."""


def next_power_of_two(n: int) -> int:
    """Return the smallest power of two ≥ ``n`` (≥ 1): Triton's tiles have such sides."""
    return 1 << max(n - 1, 0).bit_length()


pretended = False
"""Whether interpreted kernels, too, are told that they are launched early, so that their order can be watched."""


def overlaps() -> bool:
    """Return whether a kernel may be launched while the one before it still runs, for which it then waits itself.

    Programmatic dependent launch, from Hopper on: such a kernel calls ``gdc_wait`` before its first access of memory.
    In a batch of 64 the launch takes as long as the work: SiLU-and-mul in a graph on an H100 2.8 µs, without it 3.4.
    """
    return pretended or _hopper()


@cache
def _hopper() -> bool:
    return not INTERPRETED and torch.cuda.get_device_capability() >= (9, 0)


@cache
def runs_on_hopper(module: str, device: int = 0) -> bool:
    """Return whether this card is what a module of Gluon kernels is written for, and this Triton can import it."""
    if INTERPRETED or torch.cuda.get_device_capability(device)[0] != 9:
        return False
    try:
        importlib.import_module(module)
    except (ImportError, AttributeError):  # Gluon's names change with Triton
        return False
    return True


def quiet() -> AbstractContextManager[Any]:
    """Return a context for launches: interpreted arithmetic overflows, and finds only NaN, as silently as hardware."""
    return _silent() if INTERPRETED else nullcontext()


@contextmanager
def _silent() -> Iterator[None]:
    builder = importlib.import_module("triton.runtime.interpreter").interpreter_builder
    options = builder.options
    # Without debugging the interpreter looks for integer overflows too, a quarter of its time, and drops what it finds.
    builder.options = replace(options, sanitize_overflow=options.debug)
    try:
        with lean(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)  # a maximum of nothing but NaN
            yield
    finally:
        builder.options = options
