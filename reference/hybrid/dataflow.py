"""Which operator makes a tensor, which ones read it, and what each of them keeps: one pass, watched.

An operator is a leaf module, or what a container computes itself between its children. The tensors at a module's
boundary are seen by hooks, what containers compute themselves by a dispatch mode; tensors are told apart by storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gaugeblock.reference.hybrid.profile import INPUT, OUTPUT, Edge
from gaugeblock.reference.hybrid.tensors import tensors_in

Span = tuple[int, int]  # first byte in its storage, and the byte behind its last one
PRODUCTS = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "mv",
    "addmv",
    "_int_mm",
    "_scaled_",
    "scaled_dot",
    "linear",
    "matmul",
    "einsum",
    "convolution",
    "mkldnn",
)
"""How the names of aten's matrix products begin."""


@contextmanager
def hooked(
    module: nn.Module,
    before: Callable[[str, nn.Module, Any], None],
    after: Callable[[str, nn.Module, Any], None],
) -> Iterator[None]:
    """Call ``before(name, submodule, arguments)`` and ``after(name, submodule, output)`` around every submodule.

    The root's name is its class's. All hooks are gone after the block, however it ends.
    """
    handles = []
    try:
        for path, sub in module.named_modules():
            name = path or type(module).__name__

            def pre(sub: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                before(name, sub, (args, kwargs))

            def post(sub: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                after(name, sub, output)

            handles.append(sub.register_forward_pre_hook(pre, with_kwargs=True))
            handles.append(sub.register_forward_hook(post, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Watched:
    """One call of an operator: what it read from whom, and what it made."""

    name: str
    reads: dict[tuple[str, int], dict[Span, Tensor]] = field(default_factory=dict)  # (maker, storage) → tensors
    weights: dict[str, int] = field(default_factory=dict)
    made: dict[int, dict[Span, Tensor]] = field(default_factory=dict)  # storage → tensors
    boundary: set[int] = field(default_factory=set)  # storages that came as a leaf's arguments

    def sources(self) -> Iterator[tuple[str, list[Tensor]]]:
        """Yield who made what this call read, a storage at a time."""
        for (maker, _), views in self.reads.items():
            yield maker, list(views.values())


class DataFlow(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's
    """Watches one pass of ``module``; :meth:`watch` runs it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.calls: list[Watched] = []
        self.kinds: dict[str, str] = {}
        self.containers: set[str] = set()
        self.heavy: set[str] = set()  # operators with a matrix product among their operations
        self._module = module
        self._stack: list[Watched] = []
        self._maker: dict[int, str] = {}  # storage → operator
        self._life: dict[int, list[int]] = {}  # storage → moments of its first and its last use
        self._now = 0
        self._alive: list[Tensor] = []  # a storage that were freed would give its number to another one
        self._kept: dict[int, list[tuple[Span, str, int]]] = {}  # storage → parameters, buffers and what else outlives
        for name, tensor in _kept_by(module):
            self._keep(name, tensor)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled while this watches; True imports torch's compiler, for seconds

    def watch(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one pass and return its output."""
        for tensor in tensors_in((args, kwargs)):
            if _storage(tensor) not in self._kept:
                self._made_by(INPUT, tensor)
        with hooked(self._module, self._enter, self._leave), torch.no_grad(), self:
            output = self._module(*args, **kwargs)
        self.calls.append(Watched(OUTPUT))
        self._now += 1
        for tensor in tensors_in(output):
            self._read(self.calls[-1], tensor)
        return output

    def operators(self) -> list[str]:
        """Return the names of leaves, and of containers that computed something, by first call."""
        computed = {call.name for call in self.calls if call.made}
        names = dict.fromkeys(call.name for call in self.calls[:-1])
        return [name for name in names if name not in self.containers or name in computed]

    def edges(self) -> tuple[Edge, ...]:
        """Return what goes from one operator to another, in the order in which it is first read."""
        numbers: dict[str, dict[int, int]] = {}  # by producer and storage
        sizes: dict[tuple[str, str, int], int] = {}
        for call in self.calls:
            for (maker, storage), views in call.reads.items():
                if maker != call.name:
                    number = numbers.setdefault(maker, {}).setdefault(storage, len(numbers[maker]))
                    key = (maker, call.name, number)
                    sizes[key] = max(sizes.get(key, 0), size_of(views.values()))
        return tuple(Edge(maker, reader, size, number) for (maker, reader, number), size in sizes.items())

    def results(self, call: Watched) -> list[list[Tensor]]:
        """Return what others read of a call's results, a storage at a time."""
        used = {key for other in self.calls for maker, key in other.reads if maker == call.name != other.name}
        return [list(views.values()) for key, views in call.made.items() if key in used]

    def peak(self) -> int:
        """Return the most bytes of inputs, results and intermediates that were alive at one moment."""
        sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in self._alive}
        change = [0] * (self._now + 2)
        for key, (first, last) in self._life.items():
            change[first] += sizes[key]
            change[last + 1] -= sizes[key]
        return max(accumulate(change))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one aten operation and note what it reads and makes; a view is neither."""
        output = func(*args, **(kwargs or {}))
        given, results = list(tensors_in((args, kwargs or {}))), list(tensors_in(output))
        storages = {_storage(tensor) for tensor in given}
        is_view = results and not func._schema.is_mutable and all(_storage(r) in storages for r in results)
        if self._stack and not is_view:
            self._now += 1
            if func.name().partition("::")[2].partition(".")[0].startswith(PRODUCTS):
                self.heavy.add(self._stack[-1].name)
            for tensor in given:
                self._read(self._stack[-1], tensor)
            for tensor in results:
                self._make(self._stack[-1], tensor)
        return output

    def _enter(self, name: str, sub: nn.Module, arguments: Any) -> None:
        call = Watched(name)
        self._now += 1
        self.kinds[name] = type(sub).__name__
        self.calls.append(call)
        self._stack.append(call)
        for _, tensor in _own(sub):
            self._read(call, tensor)  # also what a kernel reads that does not go through the dispatcher
        if any(True for _ in sub.children()):
            self.containers.add(name)
            return
        for tensor in tensors_in(arguments):
            self._read(call, tensor)
            call.boundary.add(_storage(tensor))

    def _leave(self, name: str, sub: nn.Module, output: Any) -> None:
        call = self._stack.pop()
        self._now += 1
        if name not in self.containers:
            for tensor in tensors_in(output):
                self._make(call, tensor)

    def _read(self, call: Watched, tensor: Tensor) -> None:
        key = _storage(tensor)
        if key in call.boundary or key in call.made:
            self._use(tensor)
            return
        if key not in self._maker and key not in self._kept:
            whole = tensor.untyped_storage().nbytes()  # a cache, of which this pass sees a part
            self._kept[key] = [((0, whole), f"state.{len(self._kept)}", whole)]
            self._alive.append(tensor)
        if key in self._kept:
            first, behind = _span(tensor)
            call.weights.update({name: size for (a, b), name, size in self._kept[key] if a < behind and first < b})
            return
        call.reads.setdefault((self._maker[key], key), {})[_span(tensor)] = tensor
        self._use(tensor)

    def _make(self, call: Watched, tensor: Tensor) -> None:
        key = _storage(tensor)
        if key not in self._kept:
            call.made.setdefault(key, {})[_span(tensor)] = tensor
            self._made_by(call.name, tensor)

    def _made_by(self, name: str, tensor: Tensor) -> None:
        self._maker[_storage(tensor)] = name
        self._use(tensor)

    def _use(self, tensor: Tensor) -> None:
        self._alive.append(tensor)
        self._life.setdefault(_storage(tensor), [self._now, self._now])[1] = self._now

    def _keep(self, name: str, tensor: Tensor) -> None:
        self._alive.append(tensor)
        self._kept.setdefault(_storage(tensor), []).append((_span(tensor), name, tensor.nbytes))


def size_of(views: Iterable[Tensor]) -> int:
    """Return the bytes of views of one storage: together at most the storage's."""
    tensors = list(views)
    return min(sum(tensor.nbytes for tensor in tensors), tensors[0].untyped_storage().nbytes())


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return a module's own parameters and buffers, and the tensors that it has as plain attributes."""
    plain = [(name, value) for name, value in vars(module).items() if isinstance(value, Tensor)]
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False), *plain]


def _kept_by(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    seen = set()
    for path, sub in module.named_modules():
        for name, tensor in _own(sub):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{path}.{name}".lstrip("."), tensor


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _span(tensor: Tensor) -> Span:
    first = int(tensor.storage_offset()) * tensor.element_size()
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return first, first + (reach * tensor.element_size() if tensor.numel() else 0)
