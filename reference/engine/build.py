"""Putting a scheduler together from a configuration and a model folder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.errors import ConfigError
from gaugeblock.reference.engine.loader import Weights, load_weights, weights_digest
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.engine.scheduler import Scheduler
from gaugeblock.reference.engine.types import EngineConfig
from gaugeblock.reference.hybrid.devices import open_device
from gaugeblock.reference.hybrid.int8_file import content_digest
from gaugeblock.reference.hybrid.int8_model import int8_model
from gaugeblock.reference.hybrid.operators import model_operators
from gaugeblock.reference.hybrid.placed_model import PlacedModel, check_placement
from gaugeblock.reference.hybrid.placement import DEVICE, load_devices
from gaugeblock.reference.kv.build import build_offload
from gaugeblock.reference.kv.keys import root_key
from gaugeblock.reference.kv.manager import KVManager
from gaugeblock.reference.kv.offload import Offload
from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.policies import POLICIES
from gaugeblock.reference.kv.storage import KVShape, KVStorage
from gaugeblock.reference.kv.workers import Workers

NewStorage = Callable[[KVShape, int], KVStorage]  # of a shape and a number of pages

QUANTIZATIONS = ("int8",)
READERS = 4  # page files read side by side: one at a time reaches little more than half of what a disk can do


def check_config(config: EngineConfig) -> None:
    """Raise :class:`ConfigError` naming the field, its value and the legal range."""
    least = {
        "page_size": 1,
        "max_total_tokens": 2,  # one for the prompt and one for the answer
        "chunked_prefill_size": 1,
        "max_running_requests": 1,
        "max_queued_requests": 0,
        "host_kv_tokens": 0,
        "disk_kv_tokens": 0,
        "device_budget": 1,
    }
    for name, minimum in least.items():
        value = getattr(config, name)
        if value is not None and value < minimum:
            raise ConfigError(f"{name} must be >= {minimum}, got {value}")
    if config.quantization not in (None, *QUANTIZATIONS):
        raise ConfigError(f"quantization must be one of {', '.join(QUANTIZATIONS)}, got {config.quantization!r}")
    if config.kv_policy not in POLICIES:
        raise ConfigError(f"kv_policy must be one of {', '.join(POLICIES)}, got {config.kv_policy!r}")


def build_scheduler(config: EngineConfig, model_config: ModelConfig, folder: Path) -> Scheduler:
    """Load the weights and lay out the KV cache.

    Raises:
        ModelError: the weights cannot be loaded.
        PlacementError: the placement is not one of this model, or exceeds the device's budget.
    """
    if config.placement_path is None:
        weights, revision = _load(config, model_config, folder, ())
        return scheduler_of(LlamaModel(model_config, weights), config, revision)
    placement = load_devices(Path(config.placement_path))
    check_placement(placement, model_operators(model_config.num_hidden_layers))  # before weights are made, for minutes
    device = open_device(config.device, config.device_budget)
    on_device = [name for name, place in placement.items() if place == DEVICE]
    weights, revision = _load(config, model_config, folder, on_device)
    return scheduler_of(PlacedModel(model_config, weights, placement, device), config, revision)


def scheduler_of(model: LlamaModel, config: EngineConfig, revision: str) -> Scheduler:
    """Lay out the KV cache of a model and return its scheduler; ``revision`` names the weights in every page's key.

    Raises:
        PlacementError: the pages exceed the device's budget; the model is closed then.
    """
    try:
        kv = build_kv(config, model.config, revision, model.new_storage)
    except BaseException:
        model.close()
        raise
    return Scheduler(model, kv, config)


def _load(
    config: EngineConfig, model_config: ModelConfig, folder: Path, on_device: Collection[str]
) -> tuple[Weights, str]:
    """Return the weights that are computed with, and the revision of their KV. INT8 is for what is not on a device."""
    if config.quantization is None:
        return load_weights(folder, model_config), weights_digest(folder)
    saved = None if config.quantized_path is None else Path(config.quantized_path)
    weights = int8_model(folder, model_config, saved, on_device)
    return weights, content_digest(weights)


def build_kv(
    config: EngineConfig, model_config: ModelConfig, revision: str, new_storage: NewStorage = KVStorage
) -> KVManager:
    """Lay out the KV cache. ``revision`` names the weights in every page's key.

    Raises:
        ConfigError: a tier holds no page, or the folder of the disk tier cannot be used.
    """
    shape = KVShape(
        layers=model_config.num_hidden_layers,
        kv_heads=model_config.num_key_value_heads,
        head_dim=model_config.head_dim,
        page_size=config.page_size,
    )
    num_pages = -(-config.max_total_tokens // config.page_size)  # whole pages: the pool may be a little larger
    root = root_key(revision, "float32", shape, constants=_constants(model_config))
    storage = new_storage(shape, num_pages)  # before the disk tier has its folder: there may not be the memory for it
    offload = _build_offload(config, shape, root)
    return KVManager(storage, num_pages, root, offload, policy=config.kv_policy, prefix_cache=config.prefix_cache)


def _constants(config: ModelConfig) -> dict[str, object]:
    """Return what the KV of a token depends on and the weights do not say: two folders may share the weights alone."""
    return {
        "heads": config.num_attention_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "sliding_window": config.sliding_window,
    }


def _build_offload(config: EngineConfig, shape: KVShape, root: bytes) -> Offload:
    def in_bytes(tokens: int) -> int:
        return -(-tokens // config.page_size) * shape.page_bytes

    disk = None if config.disk_kv_path is None else Path(config.disk_kv_path)
    try:
        return build_offload(
            shape.page_form,
            in_bytes(config.host_kv_tokens),
            policy=config.kv_policy,
            disk=disk,
            disk_bytes=in_bytes(config.disk_kv_tokens),
            identity=root.hex(),
            worker=None if disk is None else Workers(1, "kv-disk-write"),
            reader=None if disk is None else Workers(READERS, "kv-disk-read"),
        )
    except KVError as error:
        raise ConfigError(str(error)) from error
