"""Times every operator of a module on both places, with real inputs, and measures what moving its tensors costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from gaugeblock.reference.hybrid.dataflow import DataFlow, Watched, hooked, size_of
from gaugeblock.reference.hybrid.links import Copy, copies_between, measure_links
from gaugeblock.reference.hybrid.placement import DEVICE, HOST, PLACES, PlacementError
from gaugeblock.reference.hybrid.profile import Call, Operator, Profile, Timing

WARMUP = 3
REPEATS = 9
Inputs = tuple[Any, ...] | Mapping[str, Any] | Callable[[], tuple[Any, ...] | Mapping[str, Any]]
Move = Callable[[nn.Module, Mapping[str, str]], object]
ROUNDS = 3
ALTERNATING = ("alternating", "swapped")
"""Passes with every other operator on the device, and with those that were on the host."""


def synchronize(device: str) -> None:
    """Wait until all work that was handed to a device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Instruments:
    """What measures: a clock in seconds, and what waits for a device.

    ``put`` and ``fetch`` copy a tensor there and back; by default ``Tensor.to`` does.
    """

    clock: Callable[[], float] = time.perf_counter
    synchronize: Callable[[str], None] = synchronize
    put: Copy | None = None
    fetch: Copy | None = None


@dataclass
class Clocked:
    """One pass under hooks: seconds that each call took itself, without its children, in the order of the calls."""

    instruments: Instruments
    device: str
    own: list[tuple[str, float]] = field(default_factory=list)
    _open: list[list[float]] = field(default_factory=list)  # [index in own, start, seconds in children]

    def before(self, name: str, sub: nn.Module, arguments: Any) -> None:
        """Start a call's clock, with nothing of earlier calls under way."""
        self.own.append((name, 0.0))
        self.instruments.synchronize(self.device)
        self._open.append([len(self.own) - 1, self.instruments.clock(), 0.0])

    def after(self, name: str, sub: nn.Module, output: Any) -> None:
        """Stop it, when the work is done and not only handed over."""
        self.instruments.synchronize(self.device)
        index, start, inside = self._open.pop()
        total = self.instruments.clock() - start
        self.own[int(index)] = (name, total - inside)
        if self._open:
            self._open[-1][2] += total


def profile(
    module: nn.Module,
    inputs: Inputs,
    devices: Mapping[str, str],
    *,
    move: Move | None = None,
    warmup: int = WARMUP,
    repeats: int = REPEATS,
    instruments: Instruments | None = None,
    model: str = "",
) -> Profile:
    """Profile a module; its outputs, parameters, buffers and hooks, and the random state, are afterwards as before.

    ``inputs``: positional or keyword arguments, or a function that makes them, for a module that changes its inputs.
    ``devices`` gives the torch device of ``host`` and ``device``; the same one twice lets it play both parts.
    ``move(module, places)`` takes a module's operators to places by name; by default the module and its inputs are
    moved by ``to``, all to one place, and what an operator takes longer behind one at the other place is not known.
    ``warmup`` passes are not counted, at least ``repeats`` are, with their median and quartiles. Places take turns in
    rounds, so that a slow while slows all.

    Raises:
        PlacementError: a place is missing or unknown, or there is nothing to time.
    """
    if set(devices) != set(PLACES):
        raise PlacementError(f"devices for {', '.join(sorted(devices))}; give one each for: {', '.join(PLACES)}")
    if warmup < 0 or repeats < 1:
        raise PlacementError(f"warmup={warmup}, repeats={repeats}: at least 0 and 1")
    tools = instruments or Instruments()
    make = inputs if callable(inputs) else lambda: inputs
    settle = move or (lambda module, places: module.to(devices[next(iter(places.values()))]))
    with _unchanged(module, devices), torch.no_grad():
        flow = DataFlow(module)
        flow.watch(*_arguments(make()))
        passes = _passes(flow, alternating=move is not None)
        parts: dict[str, list[list[float]]] = {name: [] for name in passes}
        wholes: dict[str, list[float]] = {name: [] for name in passes}
        try:
            for number in range(ROUNDS):
                for name, places in passes.items():
                    settle(module, places)
                    moved = devices[name] if move is None else None
                    cold = warmup if number == 0 else 1
                    found = _time(module, make, moved, devices[DEVICE], tools, cold, ceil(repeats / ROUNDS))
                    parts[name] += found[0]
                    wholes[name] += found[1]
        finally:
            settle(module, passes[HOST])
        put, fetch = copies_between(devices)
        to_device, to_host = measure_links(
            devices, tools.clock, tools.synchronize, tools.put or put, tools.fetch or fetch
        )
    timings = {name: [Timing.of(list(seconds)) for seconds in zip(*runs, strict=True)] for name, runs in parts.items()}
    operators, rest = _operators(flow, timings, passes)
    return Profile(
        devices=dict(devices),
        operators=operators,
        edges=flow.edges(),
        whole={place: Timing.of(wholes[place]) for place in PLACES},
        overhead=rest,
        to_device=to_device,
        to_host=to_host,
        activation_bytes=flow.peak(),
        model=model,
    )


def _passes(flow: DataFlow, *, alternating: bool) -> dict[str, dict[str, str]]:
    """Return the placements that are timed, by name. What containers compute themselves does not alternate.

    The device comes first: to start using one may change the host's own times for good.
    """
    names = flow.operators()
    passes = {DEVICE: dict.fromkeys(names, DEVICE), HOST: dict.fromkeys(names, HOST)}
    if alternating:
        leaves = [name for name in names if name not in flow.containers]
        for first, name in enumerate(ALTERNATING):
            passes[name] = passes[HOST] | {leaf: PLACES[(first + i) % 2] for i, leaf in enumerate(leaves)}
    return passes


def _arguments(given: tuple[Any, ...] | Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((), dict(given)) if isinstance(given, Mapping) else (given, {})


def _time(
    module: nn.Module,
    make: Callable[[], Any],
    moved: str | None,
    device: str,
    tools: Instruments,
    warmup: int,
    repeats: int,
) -> tuple[list[list[float]], list[float]]:
    """Return the seconds of each call in each counted pass, and those of passes without hooks."""
    parts, wholes = [], []
    for number in range(warmup + repeats):
        for with_hooks in (True, False):  # in turn, so that a busy machine slows both
            args, kwargs = _arguments(make())
            if moved is not None:
                args, kwargs = on_device((args, kwargs), moved)
            clocked = Clocked(tools, device)
            if with_hooks:
                with hooked(module, clocked.before, clocked.after):
                    module(*args, **kwargs)
            else:
                tools.synchronize(device)
                start = tools.clock()
                module(*args, **kwargs)
                tools.synchronize(device)
                seconds = tools.clock() - start
            if number < warmup:
                continue
            if with_hooks:
                parts.append([seconds for _, seconds in clocked.own])
            else:
                wholes.append(seconds)
    return parts, wholes


def on_device(value: Any, device: str) -> Any:
    """Return nested tuples, lists, mappings and dataclasses with their tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: on_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_device(item, device) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{part.name: on_device(getattr(value, part.name), device) for part in fields(value)})
    return value


def _operators(
    flow: DataFlow, timings: Mapping[str, list[Timing]], passes: Mapping[str, Mapping[str, str]]
) -> tuple[tuple[Operator, ...], dict[str, float]]:
    """Return the operators, and the seconds a pass spends in containers that compute nothing, by place."""
    names = flow.operators()
    calls: dict[str, list[Call]] = {name: [] for name in names}
    weights: dict[str, dict[str, int]] = {name: {} for name in names}
    rest = dict.fromkeys(PLACES, 0.0)
    switched = _switched(flow, timings, passes)
    for index, call in enumerate(flow.calls[:-1]):
        seconds = {place: timings[place][index] for place in PLACES}
        if call.name in calls:
            calls[call.name].append(_call(flow, call, seconds, switched[index]))
            weights[call.name].update(call.weights)
        else:
            rest = {place: rest[place] + seconds[place].median for place in PLACES}
    operators = [
        Operator(name, flow.kinds[name], name in flow.containers, name in flow.heavy, weights[name], tuple(calls[name]))
        for name in names
    ]
    return tuple(operators), rest


def _switched(
    flow: DataFlow, timings: Mapping[str, list[Timing]], passes: Mapping[str, Mapping[str, str]]
) -> list[dict[str, float]]:
    """Return for each call, by place, what it took longer behind an operator at the other place."""
    found: list[dict[str, float]] = [{} for _ in flow.calls]
    for name in ALTERNATING:
        before = HOST  # the caller
        for index, call in enumerate(flow.calls[:-1] if name in passes else []):
            if call.name in flow.containers:
                continue
            place = passes[name][call.name]
            if place != before:
                found[index][place] = timings[name][index].median - timings[place][index].median
            before = place
    return found


def _call(flow: DataFlow, call: Watched, seconds: Mapping[str, Timing], switched: Mapping[str, float]) -> Call:
    read = [tensors for maker, tensors in call.sources() if maker != call.name]
    made = flow.results(call)
    return Call(
        shapes_in=tuple(tuple(tensor.shape) for tensors in read for tensor in tensors),
        shapes_out=tuple(tuple(tensor.shape) for tensors in made for tensor in tensors),
        bytes_in=sum(size_of(tensors) for tensors in read),
        bytes_out=sum(size_of(tensors) for tensors in made),
        seconds=seconds,
        switched=switched,
    )


@contextmanager
def _unchanged(module: nn.Module, devices: Mapping[str, str]) -> Iterator[None]:
    """Give buffers and random state back as they were: passes in training mode change both."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    gpus = [torch.device(device).index or 0 for device in set(devices.values()) if torch.device(device).type == "cuda"]
    with torch.random.fork_rng(gpus):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in module.named_buffers():  # a move may have let some go
                    if name in before and not torch.equal(buffer, before[name]):
                        buffer.copy_(before[name])
