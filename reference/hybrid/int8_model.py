"""A model folder's weights in INT8 for the engine: read from a file where there is one, else made, and kept there."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from gaugeblock.reference.engine import loader
from gaugeblock.reference.engine.config import ModelConfig
from gaugeblock.reference.engine.loader import Weights
from gaugeblock.reference.engine.tokenizer import Tokenizer
from gaugeblock.reference.hybrid import int8_file
from gaugeblock.reference.hybrid.mixed import with_exact
from gaugeblock.reference.hybrid.operators import model_operators
from gaugeblock.reference.hybrid.recipe import Recipe, calibration_prompts, quantize_model

RECIPE = Recipe()


def int8_model(folder: Path, config: ModelConfig, saved: Path | None = None, exact: Collection[str] = ()) -> Weights:
    """Return the model of ``folder`` in INT8. ``saved``: a file that holds it, or will.

    The matrices of the operators ``exact`` are in fp32; they are no part of the file.

    Raises:
        ModelError: the weights cannot be loaded, or the file is of others or cannot be written.
    """
    weights, recipe = _int8_model(folder, config, saved)
    if not exact:
        return weights
    return with_exact(weights, loader.load_weights(folder, config), config, recipe, exact)


def int8_and_exact(folder: Path, config: ModelConfig, saved: Path | None = None) -> tuple[Weights, Weights]:
    """Return the model of ``folder`` in INT8, and with all matrices in fp32, which any of the former's can give way to.

    Raises:
        ModelError: as for :func:`int8_model`.
    """
    weights, recipe = _int8_model(folder, config, saved)
    everything = model_operators(config.num_hidden_layers)
    return weights, with_exact(weights, loader.load_weights(folder, config), config, recipe, everything)


def _int8_model(folder: Path, config: ModelConfig, saved: Path | None) -> tuple[Weights, Recipe]:
    if saved is not None and saved.exists():
        return int8_file.load_weights(saved, config, loader.weights_digest(folder)), int8_file.load_recipe(saved)
    prompts = calibration_prompts(Tokenizer(str(folder)).encode)
    weights = quantize_model(loader.load_weights(folder, config), config, prompts, RECIPE)
    if saved is not None:
        int8_file.save_weights(saved, weights, loader.weights_digest(folder), RECIPE)
    return weights, RECIPE
