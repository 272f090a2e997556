"""The reference engine as lanes: fp32 and INT8 engines of one model, and the front over them as one engine for HTTP."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from gaugeblock.reference.engine.build import build_scheduler, scheduler_of
from gaugeblock.reference.engine.config import ModelConfig, model_folder
from gaugeblock.reference.engine.engine import Build, Engine
from gaugeblock.reference.engine.loader import load_weights, weights_digest
from gaugeblock.reference.engine.scheduler import Scheduler
from gaugeblock.reference.engine.types import EngineConfig, EngineStats, EventSink, GenerateRequest
from gaugeblock.reference.hybrid.devices import DEVICES, open_device
from gaugeblock.reference.hybrid.front import LaneFront
from gaugeblock.reference.hybrid.http import asked_here
from gaugeblock.reference.hybrid.jobs import FrontConfig
from gaugeblock.reference.hybrid.lanes import Condition, Lane, check_lanes
from gaugeblock.reference.hybrid.operators import model_operators
from gaugeblock.reference.hybrid.placed_model import PlacedModel
from gaugeblock.reference.hybrid.placement import DEVICE, HOST
from gaugeblock.reference.router.spec import TIERS
from gaugeblock.reference.router.tables import check_choice, check_name, check_whole, record_fields, records

SECTIONS = ("front", "lanes")


def int8_scheduler(config: EngineConfig, model_config: ModelConfig, folder: Path) -> Scheduler:
    """As ``build_scheduler``, in INT8, whose KV pages have keys of their own."""
    return build_scheduler(replace(config, quantization="int8"), model_config, folder)


def device_scheduler(config: EngineConfig, model_config: ModelConfig, folder: Path) -> Scheduler:
    """As ``build_scheduler``, with every operator on the device of ``config``."""
    weights = load_weights(folder, model_config)
    placement = dict.fromkeys(model_operators(model_config.num_hidden_layers), DEVICE)
    model = PlacedModel(model_config, weights, placement, open_device(config.device, config.device_budget))
    return scheduler_of(model, config, weights_digest(folder))


QUALITIES = ("fp32", "int8")
"""What the reference engine can compute in."""
PLACES = ("auto", "host", *DEVICES)


@dataclass(frozen=True)
class LaneSpec:
    """A lane of the reference engine, as a table of a file declares it. ``model`` is a folder, None for the common one.

    A GPU lane in fp32 runs on ``device``: ``auto`` is CUDA where there is a GPU and else the host, ``pretend`` a part
    of the host that counts as one. With a ``placement`` (a file) only some operators do, in fp32 whatever the
    ``quality`` of the host's. ``device_budget`` in bytes.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    name: str
    tier: str
    quality: str
    capacity: int = 8
    low_capacity: int | None = None
    model: str | None = None
    device: str = "auto"
    placement: str | None = None
    device_budget: int | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_choice("tier", self.tier, TIERS, optional=False)
        check_choice("quality", self.quality, QUALITIES, optional=False)
        check_choice("device", self.device, PLACES, optional=False)
        on_host = self.tier != TIERS[0] or self.device == "host"
        if on_host and (self.device not in ("auto", "host") or self.placement is not None):
            raise ValueError("device and placement are for a lane of tier gpu, whose device is not the host")
        if self.quality != QUALITIES[0] and self.device not in ("auto", "host") and self.placement is None:
            raise ValueError("INT8 runs on the host: give a placement, which says what is on the device, in fp32")
        check_whole("device_budget", self.device_budget, 1)
        check_whole("capacity", self.capacity, 1)
        check_whole("low_capacity", self.low_capacity, 0, self.capacity)

    @property
    def build(self) -> Build:
        """What makes its scheduler."""
        if self.quality == "int8":
            return int8_scheduler
        gpu = self.tier == TIERS[0] and self.device != "host" and self.placement is None
        whole = gpu and (self.device != "auto" or torch.cuda.is_available())
        return device_scheduler if whole else build_scheduler

    @classmethod
    def of(cls, data: object) -> LaneSpec:
        """Return the spec of a table; raises ValueError."""
        return data if isinstance(data, LaneSpec) else cls(**record_fields(cls, "a lane", data))  # type: ignore[arg-type] # checked on the way in


DEFAULT_LANES = (LaneSpec("gpu", "gpu", "fp32"), LaneSpec("cpu", "cpu", "int8"))


def load_lanes(path: str) -> tuple[tuple[LaneSpec, ...], FrontConfig]:
    """Read lanes (``[[lanes]]``) and what concerns all of them (``[front]``) from a TOML file.

    Raises:
        ValueError: naming the file, the lane, the field and what is legal.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        for name in data:
            check_choice("a section", name, SECTIONS)
        front = FrontConfig(**record_fields(FrontConfig, "[front]", data.get("front", {})))  # type: ignore[arg-type] # checked on the way in
        return records("lane", LaneSpec.of, data.get("lanes", [])) or DEFAULT_LANES, front
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class HybridEngine:
    """Engines as lanes behind one front; to HTTP it is an engine as any other.

    Raises:
        ModelError: a folder cannot be served.
        ValueError: the lanes cannot stand in for each other, or a field is not legal.
    """

    def __init__(
        self, config: EngineConfig, specs: Sequence[LaneSpec] = DEFAULT_LANES, front: FrontConfig | None = None
    ) -> None:
        configs = [_lane_config(config, spec) for spec in specs]
        folders = [model_folder(one.model_path) for one in configs]
        digests = {folder: weights_digest(folder) for folder in folders}
        revisions = [digests[folder] for folder in folders]
        check_lanes([(spec.name, revision) for spec, revision in zip(specs, revisions, strict=True)])
        self.engines = [Engine(one, spec.build) for one, spec in zip(configs, specs, strict=True)]
        lanes = [
            Lane(spec.name, engine, spec.tier, spec.quality, revision, spec.capacity, spec.low_capacity)
            for spec, engine, revision in zip(specs, self.engines, revisions, strict=True)
        ]
        self.front = LaneFront(lanes, front)
        first = self.engines[0]
        self.tokenizer = first.tokenizer
        shortest = min(engine.context_len for engine in self.engines)  # a request fits every lane
        self.model_config = replace(first.model_config, max_position_embeddings=shortest)
        running = sum(spec.capacity for spec in specs)
        self.config = replace(config, max_running_requests=running, max_queued_requests=self.front.config.queue_size)

    @property
    def healthy(self) -> bool:
        """Whether a lane serves, or will again."""
        return self.serves or any(state.condition is Condition.RESTARTS for state in self.front.states)

    @property
    def serves(self) -> bool:
        """Whether a lane serves now."""
        return any(engine.healthy for engine in self.engines)

    @property
    def about(self) -> str:
        """The lanes in one line: name, quality and where each computes."""
        pairs = zip(self.front.states, self.engines, strict=True)
        return ", ".join(f"{state.lane.name} ({state.lane.quality} on {_where(engine)})" for state, engine in pairs)

    def start(self) -> None:
        """Start the lanes."""
        for engine in self.engines:
            engine.start()
        self.front.start()

    def stop(self) -> None:
        """Abort what runs and end the lanes."""
        self.front.stop()
        for engine in self.engines:
            engine.stop()

    def submit(self, request: GenerateRequest, sink: EventSink) -> None:
        """Queue a request with the QoS that the HTTP request at hand asks for; see :class:`LaneFront`."""
        visit = asked_here()
        self.front.submit(request, visit.watch(sink), visit.qos)

    def abort(self, rid: str | None) -> None:
        """End a request, or all (None)."""
        self.front.abort(rid)

    def flush_cache(self) -> bool:
        """Forget the cached KV of all lanes; False if one of them is at work."""
        return all(engine.flush_cache() for engine in self.engines)

    def stats(self) -> EngineStats:
        """Return the sums over the lanes."""
        each = [asdict(engine.stats()) for engine in self.engines]
        return EngineStats(**{field.name: sum(one[field.name] for one in each) for field in fields(EngineStats)})


def _where(engine: Engine) -> str:
    model = engine.scheduler.model
    if not isinstance(model, PlacedModel):
        return "the host"
    return f"the host and {model.device.name}" if HOST in model.placement.values() else model.device.name


def _lane_config(config: EngineConfig, spec: LaneSpec) -> EngineConfig:
    disk = config.disk_kv_path
    return replace(
        config,
        model_path=spec.model or config.model_path,
        device=config.device if spec.device == "host" else spec.device,
        placement_path=spec.placement,
        device_budget=spec.device_budget,
        max_running_requests=spec.capacity,
        max_queued_requests=spec.capacity,
        disk_kv_path=None if disk is None else str(Path(disk) / spec.name),
    )
