"""HYB-055."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from gaugeblock.conformance.check import check
from gaugeblock.conformance.inprocess_fixtures import needs_torch


@check(
    "HYB-055",
    feature="lanes",
    bound="exact: one bit of one weight differs",
    sources=(
        "https://github.com/triton-inference-server/server/issues/3935",
        "https://github.com/Layr-Labs/d-inference/pull/1147",
    ),
)
def test_hyb_055(record_property: Callable[[str, object], None]) -> None:
    """A lane with another revision of the model is refused at the start

    A fallback to it would go on as another model in the middle of a sentence. Look at what the revision is taken from:
    a folder's name and its config.json stay the same when weights change.
    """
    with needs_torch():
        from gaugeblock.reference.hybrid.engine_lanes import HybridEngine, LaneSpec
    from gaugeblock.fixtures.embedded import tiny_model
    from gaugeblock.reference.engine.types import EngineConfig

    config = EngineConfig(str(tiny_model()), max_total_tokens=256)
    with tempfile.TemporaryDirectory() as scratch:
        other = Path(scratch) / "tiny-llama"
        other.mkdir()
        for file in tiny_model().iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        same = (LaneSpec("gpu", "gpu", "fp32"), LaneSpec("cpu", "cpu", "int8", model=str(other)))
        HybridEngine(config, same).stop()  # equal weights in another folder are one model
        weights = other / "model.safetensors"
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(raw)
        try:
            HybridEngine(config, same).stop()
        except ValueError as error:
            message = str(error)
        else:
            raise AssertionError("a CPU lane with another revision of the model was accepted")
    named = "'cpu'" in message and "'gpu'" in message and "revision" in message
    assert named, f"the refusal does not name the lanes and what is wrong: {message}"
    record_property("evidence", message)
