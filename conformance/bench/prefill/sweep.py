"""One prompt through a model in every way of a grid, each held to one shot's distribution and to its memory's limit."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gaugeblock.conformance.bench.prefill.models import kv_bytes_per_token
from gaugeblock.conformance.prefill.judging import FP32_BOUND
from gaugeblock.reference.engine.chunked_prefill import PrefillResult, chunked_prefill

ROUNDS = 3
KV_SLACK = 1.05  # of (window + chunk) tokens: staging buffers
OVERLAP = 0.95  # least Σ min(p, q) of a low precision: right variants keep .967 or more, faults fall below .82


@dataclass(frozen=True)
class Setting:
    """One point of the grid. ``chunk`` None: one shot; ``window`` in tokens, and the ``tier`` that holds the rest."""

    chunk: int | None
    window: int | None = None
    tier: str | None = None
    overlap: bool = True

    @property
    def label(self) -> str:
        """Its name in tables."""
        if self.chunk is None:
            return "one shot"
        if self.window is None:
            return f"chunk {self.chunk}"
        return f"chunk {self.chunk}, window {self.window}, {self.tier}{'' if self.overlap else ', no overlap'}"


@dataclass(frozen=True)
class Point:
    """What one setting gave. Seconds are medians over the rounds, with the least and the most.

    ``cpu_seconds``: of all threads of this process, median over the rounds. On a GPU the host's share; on a CPU what a
    busy neighbour changes least.
    ``peak_kv_bytes`` is counted, staging buffers included; ``peak_bytes`` (CUDA) is all memory above the weights.
    ``operators`` of ATen that compute, each at least one kernel launch. ``difference``: the largest of the last token's
    log-probabilities from one shot, in nats; ``common``: Σ min(p, q) with it.
    """

    setting: Setting
    seconds: tuple[float, float, float]
    cpu_seconds: float
    peak_kv_bytes: int
    kv_limit: int | None
    peak_bytes: int | None
    operators: int
    bytes_out: int
    bytes_in: int
    overlap_efficiency: float | None
    difference: float
    common: float

    def problem(self, low_precision: bool) -> str | None:
        """Say what is wrong with it, if anything is."""
        if self.kv_limit is not None and self.peak_kv_bytes > self.kv_limit:
            return f"{self.peak_kv_bytes} bytes of KV on the device, {self.kv_limit} allowed"
        if low_precision and self.common < OVERLAP:
            return f"the next token's distribution shares {self.common:.3f} with one shot's"
        if not low_precision and not self.difference <= FP32_BOUND:
            return f"log-probabilities differ from one shot's by {self.difference:.2g} nats"
        return None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"label": self.setting.label, **asdict(self)}


class OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it without types
    """Counts the operators that compute; views launch nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the same
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and pass on."""
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def grid(tokens: int, chunk_sizes: Sequence[int], windows: Sequence[int], tiers: Sequence[str]) -> Iterator[Setting]:
    """Yield one shot, every chunk size, and every window smaller than the prompt on every tier."""
    yield Setting(None)
    for chunk in chunk_sizes:
        yield Setting(chunk)
        for window in windows:
            for tier in tiers if window < tokens else ():
                yield Setting(chunk, window, tier)
    if windows and tiers:
        yield Setting(chunk_sizes[-1], min(windows), tiers[0], overlap=False)


def sweep(
    model: Any, ids: Tensor, settings: Sequence[Setting], rounds: int, done: Callable[[Point], None]
) -> list[Point]:
    """Measure ``settings``, the first of which is one shot. ``ids``: [1, tokens] on the model's device."""
    points: list[Point] = []
    wanted: Tensor | None = None
    for setting in settings:
        point, logprobs = _measure(model, ids, setting, rounds, wanted)
        wanted = logprobs if wanted is None else wanted
        points.append(point)
        done(point)
    return points


def _measure(model: Any, ids: Tensor, setting: Setting, rounds: int, wanted: Tensor | None) -> tuple[Point, Tensor]:
    with _folder(setting.tier) as folder, OperatorCount() as counter:  # also warms up
        logits, _ = _run(model, ids, setting, folder)
    logprobs = logits.float().log_softmax(-1)
    wanted = logprobs if wanted is None else wanted
    seconds: list[float] = []
    cpu: list[float] = []
    result: PrefillResult | None = None
    before = _reset_peak(model)
    for _ in range(rounds):
        with _folder(setting.tier) as folder:
            _synchronize(model)
            started, used = time.perf_counter(), time.process_time()
            _, result = _run(model, ids, setting, folder)
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - used)
    token = kv_bytes_per_token(model)
    limit = None
    if setting.chunk is not None and setting.window is not None:
        limit = int((setting.window + setting.chunk) * token * KV_SLACK)
    point = Point(
        setting,
        (statistics.median(seconds), min(seconds), max(seconds)),
        statistics.median(cpu),
        ids.shape[1] * token if result is None else result.peak_kv_bytes,
        limit,
        _peak(model, before),
        counter.count,
        0 if result is None else result.stats.bytes_out,
        0 if result is None else result.stats.bytes_in,
        None if result is None else result.stats.overlap_efficiency,
        float((logprobs - wanted).abs().max()),
        float(torch.minimum(logprobs.exp(), wanted.exp()).sum()),
    )
    return point, wanted


def _run(model: Any, ids: Tensor, setting: Setting, folder: str | None) -> tuple[Tensor, PrefillResult | None]:
    """Return the last token's logits [vocab], computed to the end, and what the library says of it."""
    if setting.chunk is None:
        with torch.no_grad():
            logits: Tensor = model(input_ids=ids, use_cache=True, logits_to_keep=1).logits[0, -1]
        _synchronize(model)
        return logits, None
    offload = "host" if setting.tier == "host" else folder
    with chunked_prefill(
        model, ids, setting.chunk, window=setting.window, offload=offload, overlap=setting.overlap
    ) as result:
        _synchronize(model)
        return result.logits[0], result


def _folder(tier: str | None) -> AbstractContextManager[str | None]:
    return tempfile.TemporaryDirectory(prefix="gaugeblock-kv-") if tier == "disk" else nullcontext()


def _synchronize(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def _reset_peak(model: Any) -> int:
    if model.device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(model.device)
    return torch.cuda.memory_allocated(model.device)


def _peak(model: Any, before: int) -> int | None:
    return torch.cuda.max_memory_allocated(model.device) - before if model.device.type == "cuda" else None
