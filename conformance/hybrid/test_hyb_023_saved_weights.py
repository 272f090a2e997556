"""HYB-023."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess

REVISION, OTHER = "1" * 64, "2" * 64


@check(
    "HYB-023",
    feature="int8",
    bound="exact: every tensor and log-probability is equal in every bit; a file is of this revision or is refused",
    sources=(
        "https://github.com/huggingface/transformers-bloom-inference/issues/80",
        "https://github.com/sgl-project/sglang/issues/14158",
    ),
)
def test_hyb_023(int8_recipe: InProcess, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """INT8 weights that are saved and loaded are the same in every bit, and a file of anything else is refused

    Weights of another revision, of a broken download or with another channel's scales answer as fluently as right ones.
    Look at what the file says of itself, and at whether anything compares it.
    """
    from dataclasses import replace

    import numpy as np
    import torch

    from gaugeblock.fixtures.targets.inprocess import mixed_prompt, target_call
    from gaugeblock.reference.hybrid import int8_file
    from gaugeblock.reference.hybrid.recipe import Recipe

    path = tmp_path / "int8.safetensors"
    with target_call("saving and loading INT8 weights"):
        int8_file.save_weights(path, int8_recipe.weights, REVISION, Recipe())
        loaded = int8_file.load_weights(path, int8_recipe.config, REVISION)
        wanted, found = (dict(int8_file.named_tensors(w)) for w in (int8_recipe.weights, loaded))
    assert found.keys() == wanted.keys(), f"tensors lost or made up: {sorted(found.keys() ^ wanted.keys())[:4]}"
    wrong = [name for name, tensor in wanted.items() if not torch.equal(tensor, found[name])]
    assert not wrong, f"{len(wrong)} of {len(wanted)} tensors differ after loading, {wrong[0]} the first"
    ids = mixed_prompt("saved", 40)
    off = np.abs(replace(int8_recipe, weights=loaded).one_shot(ids) - int8_recipe.one_shot(ids)).max()
    assert off == 0, f"log-probabilities after loading are {off:.2g} nats off: the tensors are equal, their use is not"

    refused = []
    data = path.read_bytes()
    damaged = bytearray(data)
    damaged[-len(data) // 3] ^= 64
    cases = {
        "a file of another revision": (data, OTHER),
        "a file with one bit flipped": (bytes(damaged), REVISION),
        "the first half of a file": (data[: len(data) // 2], REVISION),
        "the fp32 weights": ((int8_recipe.folder / "model.safetensors").read_bytes(), REVISION),
    }
    for what, (content, revision) in cases.items():
        path.write_bytes(content)
        message = _refusal(path, int8_recipe, revision)
        assert message is not None, f"{what} is loaded as if it were right"
        assert str(path) in message, f"{what} is refused without its name: {message!r}"
        refused.append(what)
    record_property("evidence", f"{len(wanted)} tensors equal in every bit; refused: {', '.join(refused)}")


def _refusal(path: Path, int8_recipe: InProcess, revision: str) -> str | None:
    from gaugeblock.reference.engine.errors import ModelError
    from gaugeblock.reference.hybrid import int8_file

    try:
        int8_file.load_weights(path, int8_recipe.config, revision)
    except ModelError as error:
        return str(error)
    return None
