"""From options to a watcher: which prompts, which null, which side is believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gaugeblock.conformance.similarity.endpoints import (
    AnsweringEngine,
    agreed_prompts,
    answers_needed,
    readers_of,
    refuse_stale,
)
from gaugeblock.fixtures.errors import KitError, legal_name
from gaugeblock.fixtures.similarity.calibration import Calibration
from gaugeblock.fixtures.similarity.gates import GATES
from gaugeblock.fixtures.targets.forced import Prompt
from gaugeblock.fixtures.watch.asked import Against, Endpoint
from gaugeblock.fixtures.watch.believed import MOST, Engine, Model
from gaugeblock.fixtures.watch.rounds import Watcher

STATISTICAL = tuple(name for name, gate in GATES.items() if gate.statistical)


@answers_needed()
def watcher_for(
    target: AnsweringEngine,
    reference: AnsweringEngine | None,
    calibration: Calibration,
    *,
    folder: Path | None,
    gate: str,
    alpha: float,
    size: int,
    seed: int,
    top: int | None,
    priority: str | None = None,
) -> tuple[Watcher, Sequence[tuple[int, ...]]]:
    """Return a watcher of ``target``, and the token prompts that it draws from.

    Args:
        target: the engine that is watched.
        reference: the engine that is believed; None: the model folder in fp32.
        calibration: the model's null.
        folder: the served model.
        gate: ``bf16`` or ``int8``: whose variants the null is drawn from.
        alpha: the false-alarm rate of the whole watch.
        size: positions a round.
        seed: of the order of positions.
        top: candidates a position; None: as many as each engine gives.
        priority: sent as ``x-priority``, for the lane that is meant.

    Raises:
        KitError: nothing to believe, a calibration of another model or without the gate's variants, tokenizers that
            disagree, an engine whose logprobs cannot be read so.
        EnvironmentFault: nothing answers.
    """
    chosen = GATES[legal_name("gate", gate, STATISTICAL)]
    if reference is None and folder is None:
        raise KitError("held against what? Name a more exact engine with --reference URL, or the model with --model")
    targets = (target,) if reference is None else (target, reference)
    prompts, trouble = agreed_prompts(targets, folder)
    if trouble:
        raise KitError(
            f"the engines do not turn the prompts into the same tokens, so nothing can be compared: {trouble}"
        )
    known = folder or next((t.folder for t in targets if t.folder is not None), None)
    refuse_stale(calibration, known, prompts)
    limits = calibration.limits(chosen)
    ids = [_tokens(prompt) for prompt in prompts]
    readers = readers_of(targets, folder, top, MOST)
    readers[0].headers = None if priority is None else {"x-priority": priority}
    if reference is None and readers[0].names is not None:
        raise KitError(f"{target.url} names tokens by their text alone: give --reference URL beside --model")
    believed = Model.load(folder or Path()) if reference is None else Engine(Endpoint(readers[1], ids).ask)
    measure = Against(Endpoint(readers[0], ids).ask, believed)
    lengths = [len(row) - 1 for row in ids]
    return Watcher(measure, lengths, limits, alpha, size, seed, calibration.usual(chosen)), ids


def _tokens(prompt: Prompt) -> tuple[int, ...]:
    if isinstance(prompt, str):
        raise KitError("a watch needs token ids: name the served model's folder with --model")
    return prompt
