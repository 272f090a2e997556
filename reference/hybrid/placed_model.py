"""The reference engine's model over two devices: each operator runs where a placement says.

The forward pass is the model's own. A hook in front of each operator moves those arguments that lie elsewhere; what the
host makes for a step (rotations, slots, page tables) moves once a step and device. Logits and KV pages that leave the
cache go to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from gaugeblock.reference.engine import layers as operators
from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.errors import DeviceFault
from gaugeblock.reference.engine.loader import Weights
from gaugeblock.reference.engine.model import LlamaModel, PagedStep, PlainStep
from gaugeblock.reference.hybrid.devices import Device
from gaugeblock.reference.hybrid.operators import ATTENTION, HEAD, of_layer, operator_names
from gaugeblock.reference.hybrid.placed_kv import PlacedKV
from gaugeblock.reference.hybrid.placement import DEVICE, Placement, PlacementError
from gaugeblock.reference.kv.storage import KVShape

T = TypeVar("T")


class PlacedModel(LlamaModel):
    """A :class:`LlamaModel` whose operators run on the host or on ``device``, by ``placement``.

    Raises:
        PlacementError: an operator without a place, a name that is none, INT8 weights on the device, or weights that
            exceed the device's budget. Nothing has moved then.
    """

    placement: Mapping[str, str] = {}  # of none, until the tree stands

    def __init__(self, config: ModelConfig, weights: Weights, placement: Mapping[str, str], device: Device) -> None:
        super().__init__(config, weights)
        self.device = device
        names = operator_names(self)
        check_placement(placement, names)
        self.placement = dict(placement)
        self._held: dict[str, int] = {}  # bytes of weights on the device
        self._kv: list[PlacedKV] = []
        self._at = HEAD  # the operator that runs
        self._step: operators.Step | None = None  # this pass' step, once it is on the device
        for name in names:
            self.get_submodule(name).register_forward_pre_hook(partial(self._enter, name))
        self._settle()

    def load(self, weights: Weights) -> None:
        """Compute with ``weights`` from now on, on both devices. What the device held is let go first.

        Raises:
            PlacementError: as for a new model.
        """
        super().load(weights)
        if self.placement:
            self._settle()

    def new_storage(self, shape: KVShape, num_pages: int) -> PlacedKV:
        """Lay out KV pages: those of a layer where its attention runs.

        Raises:
            PlacementError: they exceed the device's budget.
        """
        attentions = {layer: of_layer(layer, ATTENTION) for layer in range(shape.layers)}
        there = {layer: name for layer, name in attentions.items() if self.placement[name] == DEVICE}
        self._kv.append(PlacedKV(shape, num_pages, there, self.device))
        return self._kv[-1]

    def close(self) -> None:
        """Let go of all that is on the device. The model computes no more."""
        self.device.ledger.release(self._held)
        self._held = {}
        while self._kv:
            self._kv.pop().close()
        for operator in self._weighted().values():
            del operator.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [rows, vocab] on the host.

        Raises:
            DeviceFault: the device failed.
        """
        return self._guarded(super().logits, hidden)

    def _decode(self, input_ids: Tensor, step: operators.Step, rows: Tensor | None = None) -> Tensor:
        self._step = None
        return self._guarded(super()._decode, input_ids, step, rows)

    def _guarded(self, run: Callable[..., T], *args: Any) -> T:
        try:
            return run(*args)
        except DeviceFault:
            raise
        except Exception as error:
            if self.placement[self._at] != DEVICE:
                raise
            raise DeviceFault(self._at, self.device.name, error) from error

    def _enter(self, name: str, _operator: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Bring an operator's arguments to where it runs."""
        self._at = name
        place = self.placement[name]
        try:
            return tuple(self._moved(arg, place) for arg in args)
        except Exception as error:
            raise DeviceFault(name, self.device.name, error) from error

    def _moved(self, value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            return self._there(value) if place == DEVICE else self._home(value)
        if place == DEVICE and isinstance(value, PagedStep | PlainStep):
            if self._step is None:
                self._step = value.to(self._there)
            return self._step
        return value

    def _there(self, tensor: Tensor) -> Tensor:
        return tensor if self.device.holds(tensor) else self.device.put(tensor)

    def _home(self, tensor: Tensor) -> Tensor:
        return self.device.fetch(tensor) if self.device.holds(tensor) else tensor

    def _settle(self) -> None:
        """Move the weights of the operators on the device there; one that two of them share moves once."""
        there = self._weighted()
        self.device.ledger.release(self._held)
        self._held = {}
        needs = _needs({name: operator.weight for name, operator in there.items()})
        self.device.ledger.reserve(needs)
        self._held = needs
        copies: dict[int, Tensor] = {}
        for name, operator in there.items():
            weight = operator.weight
            try:
                operator.hold(copies.get(id(weight)) if id(weight) in copies else self.device.put(weight))
            except Exception as error:
                raise DeviceFault(name, self.device.name, error) from error
            copies[id(weight)] = operator.weight

    def _weighted(self) -> dict[str, operators.Weighted]:
        """Return the operators on the device that have a weight."""
        there = {name: self.get_submodule(name) for name, place in self.placement.items() if place == DEVICE}
        return {name: operator for name, operator in there.items() if isinstance(operator, operators.Weighted)}


def check_placement(placement: Mapping[str, str], operator_names: Iterable[str]) -> None:
    """Check that a placement gives each operator one of the places.

    Raises:
        PlacementError: naming the operators and listing the legal names.
    """
    Placement("given", placement, 0.0, 0, 0).refuse_other_operators(operator_names)


def _needs(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the bytes of each weight on the device; one that two operators share counts for the first of them."""
    needs, counted = {}, set()
    for name, weight in weights.items():
        if not isinstance(weight, Tensor):
            raise PlacementError(
                f"{name} has {type(weight).__name__} weights, which run on the host alone: place it there, "
                "or give it fp32 weights (gaugeblock.reference.hybrid.mixed)"
            )
        needs[name] = 0 if id(weight) in counted else weight.nbytes
        counted.add(id(weight))
    return needs
