"""The second device of a placement: a GPU, or a part of the host that stands in for one.

A device counts what is held on it (weights and KV pages, against a budget) and what moves to it and back. Activations
and the buffer that attention gathers pages into are not counted: they last for a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gaugeblock.reference.hybrid.placement import PlacementError
from gaugeblock.reference.hybrid.tensors import tensors_in

PINNED_BYTES = 16 << 20  # what is larger (weights, not activations) is not worth pinned memory that stays taken


@dataclass
class Traffic:
    """Tensors copied in one direction, and their bytes."""

    copies: int = 0
    nbytes: int = 0

    def add(self, tensor: Tensor) -> None:
        """Count one copy."""
        self.copies += 1
        self.nbytes += tensor.nbytes


@dataclass
class Ledger:
    """What a device holds, by the operator that needs it, within ``budget`` bytes (None: no limit), and its traffic."""

    budget: int | None = None
    held: dict[str, int] = field(default_factory=dict)
    arrived: Traffic = field(default_factory=Traffic)  # from the host
    left: Traffic = field(default_factory=Traffic)  # to the host

    @property
    def total(self) -> int:
        """Bytes held."""
        return sum(self.held.values())

    def reserve(self, needs: Mapping[str, int]) -> None:
        """Hold bytes for operators; all, or none of them when one exceeds the budget.

        Raises:
            PlacementError: naming the operator, its bytes and the budget.
        """
        total = self.total
        for operator, nbytes in needs.items():
            if self.budget is not None and total + nbytes > self.budget:
                raise PlacementError(
                    f"{operator} needs {nbytes} bytes on the device, {self.budget - total} of its budget of "
                    f"{self.budget} are left: place operators on the host, or give the device more"
                )
            total += nbytes
        for operator, nbytes in needs.items():
            self.held[operator] = self.held.get(operator, 0) + nbytes

    def release(self, needs: Mapping[str, int]) -> None:
        """Give back what was reserved."""
        for operator, nbytes in needs.items():
            self.held[operator] -= nbytes
            if not self.held[operator]:
                del self.held[operator]


class Device(ABC):
    """A device beside the host. Copies never share memory with what they are copied from."""

    name: str

    def __init__(self, budget: int | None = None) -> None:
        self.ledger = Ledger(budget)

    @abstractmethod
    def holds(self, tensor: Tensor) -> bool:
        """Tell whether a tensor lies here."""

    def put(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor of the host."""
        self.ledger.arrived.add(tensor)
        return self._put(tensor)

    def fetch(self, tensor: Tensor) -> Tensor:
        """Return a copy on the host, complete when this returns."""
        self.ledger.left.add(tensor)
        return self._fetch(tensor)

    def nothing(self) -> Tensor:
        """Return an empty tensor that lies here, for others to be made like."""
        return self._put(torch.empty(0))

    @abstractmethod
    def _put(self, tensor: Tensor) -> Tensor: ...

    @abstractmethod
    def _fetch(self, tensor: Tensor) -> Tensor: ...


class PretendTensor(Tensor):
    """A tensor on the pretend device: an operation that mixes it with one of the host fails, as it does on a GPU."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function if all its tensors lie on the device; its results lie there too.

        Raises:
            RuntimeError: a tensor of the host is among them.
        """
        for tensor in tensors_in((args, kwargs)):
            if not isinstance(tensor, cls):
                name = getattr(function, "__name__", function)
                raise RuntimeError(f"{name} got tensors of the host and of the device: all must be on one of them")
        return super().__torch_function__(function, types, args, kwargs or {})  # type: ignore[no-untyped-call] # torch's


class PretendDevice(Device):
    """Memory of the host that nothing of the host may touch. Computes the same bits as the host."""

    name = "pretend"

    def holds(self, tensor: Tensor) -> bool:
        """Tell whether a tensor lies here."""
        return isinstance(tensor, PretendTensor)

    def _put(self, tensor: Tensor) -> Tensor:
        return tensor.clone().as_subclass(PretendTensor)

    def _fetch(self, tensor: Tensor) -> Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            return tensor.clone().as_subclass(Tensor)


class CudaDevice(Device):
    """The current CUDA device. Copies are queued on its current stream, behind what computes their source.

    Raises:
        PlacementError: there is none.
    """

    name = "cuda"

    def __init__(self, budget: int | None = None) -> None:
        if not torch.cuda.is_available():
            raise PlacementError("there is no CUDA device here: choose the device 'pretend', or run on a GPU machine")
        super().__init__(budget)
        self.where = torch.device("cuda", torch.cuda.current_device())

    def holds(self, tensor: Tensor) -> bool:
        """Tell whether a tensor lies here."""
        return tensor.device == self.where

    def _put(self, tensor: Tensor) -> Tensor:
        # The copy reads pinned memory that is ours alone: the source may change at once, and kernels queued behind the
        # copy wait for it. The allocator keeps the pinned block until the stream has passed the copy.
        if tensor.nbytes > PINNED_BYTES or not tensor.numel():
            return tensor.to(self.where)
        return tensor.pin_memory().to(self.where, non_blocking=True)

    def _fetch(self, tensor: Tensor) -> Tensor:
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=bool(tensor.numel()))
        host.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(self.where).synchronize()  # whoever reads it next is the host
        return host


DEVICES: dict[str, type[Device]] = {"pretend": PretendDevice, "cuda": CudaDevice}


def open_device(name: str = "auto", budget: int | None = None) -> Device:
    """Return a device by name; ``"auto"`` is CUDA where there is a GPU, else the pretend device.

    Raises:
        PlacementError: no such name, or no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "pretend"
    if name not in DEVICES:
        raise PlacementError(f"there is no device {name!r}: choose one of auto, {', '.join(DEVICES)}")
    return DEVICES[name](budget)
