"""Two engines over HTTP, teacher-forced with the kit's prompts and held to a gate; a ladder names where they part.

First rung: both turn the prompts into the same tokens. Second: their next-token distributions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaugeblock.fixtures.errors import EnvironmentFault, KitError, TargetFault
from gaugeblock.fixtures.heap import collected_seldom
from gaugeblock.fixtures.oracle import oracle_for
from gaugeblock.fixtures.similarity.calibration import Calibration, model_digest
from gaugeblock.fixtures.similarity.gates import GATES, Gate, Judgement, judge
from gaugeblock.fixtures.similarity.prompts import LENGTH, prompts_digest, texts, token_prompts
from gaugeblock.fixtures.similarity.summary import Similarity, summarise
from gaugeblock.fixtures.similarity.truncated import truncated
from gaugeblock.fixtures.targets.engine import Body, EngineTarget
from gaugeblock.fixtures.targets.forced import TOO_MANY, Forced, Names, Prompt, Reader, way_of
from gaugeblock.fixtures.targets.wire import Limits, Reply

RUNGS = {"tokens": "both turn a text into the same tokens", "distributions": "the next-token distributions agree"}
FEW = 20  # candidates: a gate on log-probabilities looks at the best ones
MOST = 1024  # a statistic needs nearly all of the mass
RESULTS = {"passed": "conformant", "failed": "nonconformant", "inconclusive": "inconclusive"}


@dataclass(frozen=True)
class Comparison:
    """What came of it. ``rung`` is the first one that failed; ``similarity`` is None when it was not reached."""

    gate: Gate
    judgement: Judgement
    rung: str | None
    similarity: Similarity | None
    tops: tuple[int, ...]
    seconds: float

    @property
    def result(self) -> str:
        """``conformant``, ``nonconformant`` or ``inconclusive``."""
        return RESULTS[self.judgement.outcome]

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "gate": self.gate.describe(),
            "result": self.result,
            "rung": self.rung,
            "complaints": self.judgement.complaints,
            "doubts": self.judgement.doubts,
            "similarity": None if self.similarity is None else self.similarity.describe(),
            "candidates": list(self.tops),
            "seconds": round(self.seconds, 3),
        }


class NoAnswer(TargetFault):
    """An engine gave no whole answer, or one that says that it could not: no word about what it computes."""


class AnsweringEngine(EngineTarget):
    """An engine whose silence is told apart from its answers.

    ``get`` and ``post`` raise NoAnswer when no whole answer comes; ``post`` also for a status other than 2xx, save
    those by which an engine refuses what it was asked for.
    """

    def get(self, path: str, limits: Limits | None = None) -> Reply:
        """GET; any status is returned."""
        with _silence():
            return super().get(path, limits)

    def post(
        self, path: str, body: Body, headers: Mapping[str, str] | None = None, limits: Limits | None = None
    ) -> Reply:
        """POST a JSON object, or bytes as they are."""
        with _silence():
            reply = super().post(path, body, headers, limits)
        if not reply.ok and reply.status not in TOO_MANY:
            raise NoAnswer(reply.shown)
        return reply


@contextmanager
def _silence() -> Iterator[None]:
    try:
        yield
    except TargetFault as error:
        raise NoAnswer(str(error)) from None


@contextmanager
def answers_needed() -> Iterator[None]:
    """Turn an engine that does not answer into the environment's fault: nothing was compared."""
    try:
        yield
    except NoAnswer as error:
        raise EnvironmentFault(f"an engine does not answer, so nothing can be compared: {error}") from None


@answers_needed()
def compare_endpoints(
    reference: AnsweringEngine,
    other: AnsweringEngine,
    *,
    gate: str | None = None,
    calibration: Calibration | None = None,
    folder: Path | None = None,
    top: int | None = None,
) -> Comparison:
    """Compare ``other`` with ``reference``, the more exact of the two.

    Args:
        reference: the engine that is believed.
        other: the engine that is judged.
        gate: a name of ``GATES``; None: ``fp32`` when both tell that they compute in it, else ``bf16``.
        calibration: the model's null, which the statistical gates need for a pass.
        folder: the served model, for its tokenizer.
        top: candidates a position; None: 20 where the best ones suffice, else as many as each engine gives.

    Raises:
        KitError: a calibration of another model, or an engine whose logprobs cannot be read.
        EnvironmentFault: nothing answers, from the start or any more.
    """
    started = time.monotonic()
    chosen = GATES[gate or ("fp32" if computes_in_fp32(reference) and computes_in_fp32(other) else "bf16")]
    prompts, trouble = agreed_prompts((reference, other), folder)
    if calibration is not None and chosen.statistical:
        refuse_stale(calibration, folder or reference.folder or other.folder, prompts)
        chosen = calibration.gate(chosen)
    if trouble:
        return _failed(chosen, "tokens", trouble, started)
    readers = readers_of((reference, other), folder, top, most=MOST if chosen.statistical else FEW)
    try:
        with collected_seldom(), ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda reader: reader.read(prompts), readers)
    except NoAnswer:
        raise
    except TargetFault as error:
        return _failed(chosen, "distributions", str(error), started)
    trouble = next((t for i, pair in enumerate(zip(first, second, strict=True)) if (t := _parted(i, *pair))), "")
    if trouble:
        return _failed(chosen, "tokens", trouble, started)
    rows = [truncated(a.rows, b.rows) for a, b in zip(first, second, strict=True)]
    similarity = summarise(rows, [forced.ids for forced in first], chosen.usual)
    judgement = judge(similarity, chosen)
    rung = "distributions" if judgement.outcome == "failed" else None
    tops = tuple(reader.top or 0 for reader in readers)
    return Comparison(chosen, judgement, rung, similarity, tops, time.monotonic() - started)


def computes_in_fp32(target: EngineTarget) -> bool:
    """Whether an engine tells that it computes in fp32; one whose ``/get_server_info`` fails does not."""
    try:
        told = target.info.get("dtype", "")
    except NoAnswer:
        raise
    except TargetFault:
        return False
    return str(told).removeprefix("torch.") in ("float32", "float")


def agreed_prompts(targets: Sequence[EngineTarget], folder: Path | None) -> tuple[Sequence[Prompt], str]:
    """Return the prompts, as token ids where a tokenizer is at hand, and how the engines' tokenizers disagree.

    Raises:
        NoAnswer: an engine does not answer.
    """
    told: dict[str, list[tuple[int, ...]]] = {}
    if folder is not None:
        told[str(folder)] = token_prompts(oracle_for(folder))
    for target in targets:
        if "tokenize" in target.features:
            try:
                told[target.url] = [target.tokenize(text)[:LENGTH] for text in texts()]
            except NoAnswer:
                raise
            except TargetFault as error:
                return texts(), str(error)
    if not told:
        return texts(), ""
    (name, ids), *others = told.items()
    for another, these in others:
        for number, (want, got) in enumerate(zip(ids, these, strict=True)):
            if want != got:
                return ids, f"prompt {number}: {_first_difference(want, got)}: by {name} and by {another}"
    return ids, ""


def readers_of(targets: Sequence[EngineTarget], folder: Path | None, top: int | None, most: int) -> list[Reader]:
    """Return what reads each engine: all in OpenAI's dialect, with the same numbers for tokens, if one needs it."""
    by_text = "openai" in map(way_of, targets)
    names = Names() if by_text else None
    vocabs = [None if by_text else _vocab(target, folder) for target in targets]
    return [Reader(target, vocab, names, top, most) for target, vocab in zip(targets, vocabs, strict=True)]


def _vocab(target: EngineTarget, folder: Path | None) -> int | None:
    size = oracle_for(folder).vocab_size if folder is not None else target.folder_config.get("vocab_size")
    return size if isinstance(size, int) else None


def refuse_stale(calibration: Calibration, folder: Path | None, prompts: Sequence[Prompt]) -> None:
    """Hold a calibration to the served model and to the token prompts.

    Raises:
        KitError: it is of others, or which model is served cannot be told.
    """
    ids = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if folder is None or not ids:
        raise KitError("whose calibration it is cannot be told: name the served model's folder with --model")
    calibration.refuse_stale(model_digest(folder), prompts_digest(ids))


def _parted(number: int, first: Forced, second: Forced) -> str:
    if first.ids == second.ids:
        return ""
    return f"prompt {number}: {_first_difference(first.ids, second.ids)}: the engines tokenise it differently"


def _first_difference(want: Sequence[int], got: Sequence[int]) -> str:
    place = next((i for i, pair in enumerate(zip(want, got, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        return f"{len(want)} tokens and {len(got)} tokens"
    return f"token {place} is {want[place]} and {got[place]}"


def _failed(gate: Gate, rung: str, message: str, started: float) -> Comparison:
    return Comparison(gate, Judgement("failed", [message]), rung, None, (), time.monotonic() - started)
