"""The engine's model under the profiler and the clock: what its operators cost, and what a placement of them takes.

A pass is the prefill of one prompt, from its ids to the logits of every token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn

from gaugeblock.reference.engine.config import ModelConfig, load_config
from gaugeblock.reference.engine.loader import Weights, load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.hybrid.devices import Device
from gaugeblock.reference.hybrid.int8_model import int8_and_exact
from gaugeblock.reference.hybrid.mixed import with_matrices
from gaugeblock.reference.hybrid.operators import ATTENTION, of_layer, operator_names
from gaugeblock.reference.hybrid.placed_model import PlacedModel
from gaugeblock.reference.hybrid.placement import DEVICE, HOST
from gaugeblock.reference.hybrid.profile import Profile, Timing
from gaugeblock.reference.hybrid.profiler import REPEATS, ROUNDS, WARMUP, Instruments, profile, synchronize

ENOUGH = 1.0  # seconds of passes of which the median is known well, also on a machine that does other things
MOST_PASSES = 60


class Pass(nn.Module):
    """A model's pass as one module, whose submodules have the operators' names."""

    def __init__(self, llama: PlacedModel) -> None:
        super().__init__()
        self.model, self.lm_head = llama.model, llama.lm_head
        self._run = llama.forward_full  # a bound method: the model itself is no submodule

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the logits [tokens, vocab] of ``input_ids`` [tokens]."""
        return self._run(input_ids)


class ModelBench:
    """A model folder and a second device, to profile and to time. Weights are loaded once.

    ``quantization`` (``"int8"``, or None for fp32) is for the host's matrices, as when an engine serves a placement;
    ``saved`` is a file that keeps them, or will.

    Raises:
        ModelError: the folder holds no model that the engine can run, or the file is of others or cannot be written.
    """

    def __init__(
        self, folder: Path, device: Device, tokens: int, quantization: str | None = None, saved: Path | None = None
    ) -> None:
        self.folder, self.device, self.quantization = folder, device, quantization
        self.config: ModelConfig = load_config(folder)
        self.weights, self.exact = _weights(folder, self.config, quantization, saved)  # the host's, the device's
        self.input_ids = torch.arange(tokens) * 31 % self.config.vocab_size
        self.threads = torch.get_num_threads()
        self.torch_device = "cpu" if device.name == "pretend" else device.name
        self.operators = operator_names(LlamaModel(self.config, self.weights))

    def profile(self, kv_tokens: int) -> Profile:
        """Profile one pass at both places, and reckon the KV of ``kv_tokens`` tokens as attention's to keep.

        Raises:
            DeviceFault: the whole model does not fit on the device, where it is timed once.
        """
        model = self._placed(dict.fromkeys(self.operators, HOST))

        def move(module: nn.Module, places: Mapping[str, str]) -> None:
            model.placement = {name: places[name] for name in self.operators}
            model.load(self._held(model.placement))

        try:
            repeats = _passes(lambda: model.forward_full(self.input_ids))
            model.load(self.exact)  # what is counted is what the device would hold; what is timed is moved first
            found = profile(
                Pass(model),
                (self.input_ids,),
                {HOST: "cpu", DEVICE: self.torch_device},
                move=move,
                repeats=repeats,
                instruments=Instruments(put=self.device.put, fetch=self.device.fetch),
                model=self.folder.name,
            )
        finally:
            model.close()
        return self._with_kv(found, kv_tokens)

    def measure(self, placements: Sequence[Mapping[str, str]]) -> list[Timing]:
        """Time a pass by each placement, ids on the host to logits on the host, in rounds: a slow while slows all."""
        seconds: list[list[float]] = [[] for _ in placements]
        for _ in range(ROUNDS):
            for taken, placement in zip(seconds, placements, strict=True):
                taken += self._round(placement)
        return [Timing.of(taken) for taken in seconds]

    def _round(self, placement: Mapping[str, str]) -> list[float]:
        model = self._placed(placement)

        def run() -> None:
            model.forward_full(self.input_ids)
            synchronize(self.torch_device)

        try:
            for _ in range(WARMUP):
                run()
            return [_seconds(run) for _ in range(max(2, _passes(run) // ROUNDS))]
        finally:
            model.close()

    def _placed(self, placement: Mapping[str, str]) -> PlacedModel:
        return PlacedModel(self.config, self._held(placement), placement, self.device)

    def _held(self, placement: Mapping[str, str]) -> Weights:
        on_device = [name for name, place in placement.items() if place == DEVICE]
        return with_matrices(self.weights, self.exact, on_device)

    def _with_kv(self, found: Profile, kv_tokens: int) -> Profile:
        size = 2 * self.config.num_key_value_heads * self.config.head_dim * 4 * kv_tokens
        keepers = {of_layer(layer, ATTENTION) for layer in range(self.config.num_hidden_layers)}
        operators = [
            replace(o, weights={**o.weights, f"{o.name}.kv": size}) if o.name in keepers else o for o in found.operators
        ]
        return replace(found, operators=tuple(operators), quantization=self.quantization)


def _weights(
    folder: Path, config: ModelConfig, quantization: str | None, saved: Path | None
) -> tuple[Weights, Weights]:
    """Return what the host computes with, and what the device does."""
    if quantization is not None:
        return int8_and_exact(folder, config, saved)
    weights = load_weights(folder, config)
    return weights, weights


def _passes(run: Callable[[], object]) -> int:
    """Return how many passes are enough."""
    return min(MOST_PASSES, max(REPEATS, ceil(ENOUGH / _seconds(run))))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
