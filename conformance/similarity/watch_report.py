"""What a watch says: one line a round on the terminal, one JSON line a round in a file, and how it ended."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from gaugeblock.conformance.out import prepare_out
from gaugeblock.conformance.verdict import EXIT_CODES
from gaugeblock.conformance.versions import version_of
from gaugeblock.fixtures.similarity.calibration import Calibration
from gaugeblock.fixtures.similarity.summary import SHOWN
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.watch.hold import Ending, Pace
from gaugeblock.fixtures.watch.reading import Reading
from gaugeblock.fixtures.watch.rounds import Round, Watcher, nearest_rank

SCHEMA_VERSION = 1
OURS = ("watch.jsonl", "watch.json")
TAILS = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Told:
    """An ending: its exit code and its last line."""

    code: int
    text: Callable[[Watcher, Pace], str]


def _regressed(watcher: Watcher, pace: Pace) -> str:
    alpha = 2 * watcher.certain.alpha
    worst = watcher.worst
    return (
        f"result: a confirmed regression after {watcher.certain.positions} positions in {watcher.rounds} rounds; a "
        f"right engine is ever called so with a probability of at most {alpha:g}. Lowest overlap {_where(worst)}. "
        "`gaugeblock compare` shows all prompts"
    )


def _undecided(watcher: Watcher, pace: Pace) -> str:
    if not watcher.certain.positions:
        return f"result: inconclusive, nothing was read in {watcher.rounds} rounds"
    return (
        f"result: inconclusive after {watcher.certain.positions} positions: it depends on the mass outside the "
        "candidates; ask for more of them (--top)"
    )


ENDINGS: dict[Ending, Told] = {
    "passed": Told(
        EXIT_CODES["conformant"],
        lambda watcher, pace: (
            f"result: no alarm in {watcher.rounds} rounds, {watcher.certain.positions} positions; "
            f"{100 * watcher.certain.share:.0f}% of the way to one"
        ),
    ),
    "regressed": Told(EXIT_CODES["nonconformant"], _regressed),
    "inconclusive": Told(EXIT_CODES["inconclusive"], _undecided),
    "unreachable": Told(
        EXIT_CODES["error"],
        lambda watcher, pace: f"result: unreachable for {pace.patience:g} s, which is all that --patience allows",
    ),
}


def line(made: Round) -> str:
    """Return a round in one line."""
    text = f"round {made.number}: "
    if made.readings:
        low = min(made.readings, key=lambda reading: reading.high)
        times = "/".join(f"{1e3 * made.latency(tail):.0f}" for tail in TAILS)
        broken = sum(bool(reading.broken) for reading in made.readings)
        text += f"{made.positions} positions, lowest overlap {_where(low)}, {100 * made.share:.0f}% to the alarm"
        text += f" ({100 * made.possible:.0f}% by what is open)" if made.possible > made.share + 0.005 else ""
        text += f", p50/p95/p99 {times} ms" + (f", {broken} broken answers" if broken else "")
    return text + ("; " if made.readings and made.away else "") + (f"away: {made.away}" if made.away else "")


def _where(reading: Reading | None) -> str:
    if reading is None:
        return "unknown"
    value = f"{reading.high:.4f}"
    if reading.low < reading.high - 5e-5:
        value = f"{reading.low:.4f} to {value}"
    return f"{value} (prompt {reading.draw.prompt}, position {reading.draw.position})"


class Record:
    """``watch.jsonl`` and ``watch.json`` in a folder; None: nothing is written.

    Raises:
        KitError: it cannot be written there.
    """

    def __init__(self, folder: Path | None, prompts: Sequence[tuple[int, ...]]) -> None:
        self._folder = folder
        self._prompts = prompts
        self._rounds = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> Record:
        if self._folder is not None:
            prepare_out(self._folder, OURS)
            self._file = (self._folder / OURS[0]).open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, made: Round) -> None:
        """Write a round's line."""
        self._rounds += 1
        if self._file is not None:
            print(json.dumps(self._round(made), allow_nan=False), file=self._file, flush=True)

    def end(
        self,
        ending: Ending | Literal["interrupted"],
        target: EngineTarget,
        null: Calibration,
        gate: str,
        alpha: float,
        pace: Pace,
    ) -> None:
        """Write how it ended; a file without its footer is none."""
        if self._folder is None:
            return
        data = {
            "schema_version": SCHEMA_VERSION,
            "kit": {"name": "gaugeblock", "version": version_of("gaugeblock")},
            "engine": {"url": target.url, **target.probed.describe()},
            "calibration": {"model": dict(null.model), **null.provenance},
            "gate": gate,
            "alpha": alpha,
            "pace": asdict(pace),
            "rounds": self._rounds,
            "result": ending,
            "footer": {"complete": True},
        }
        draft = self._folder / "watch.json.tmp"
        draft.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        draft.replace(self._folder / OURS[1])

    def _round(self, made: Round) -> dict[str, Any]:
        lanes = sorted({reading.lane for reading in made.readings})
        return {
            "round": made.number,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "read": len(made.readings),
            "away": made.away or None,
            "positions": made.positions,
            "overlap": {
                bound: {f"{q:g}": nearest_rank([getattr(r, bound) for r in made.readings], q) for q in (0, 0.01, 0.5)}
                for bound in (("low", "high") if made.readings else ())
            },
            "worst": None if made.worst is None else self._place(made.worst),
            "capital": made.capital,
            "alarm_share": made.share,
            "possible_share": made.possible,
            "alarm": made.alarm,
            "broken": sum(bool(reading.broken) for reading in made.readings),
            "fallbacks": sum(bool(reading.fallback) for reading in made.readings),
            "seconds": {
                lane or "unnamed": {
                    f"{q:g}": nearest_rank([r.seconds for r in made.readings if r.lane == lane], q) for q in TAILS
                }
                for lane in lanes
            },
        }

    def _place(self, reading: Reading) -> dict[str, Any]:
        ids = self._prompts[reading.draw.prompt]
        end = reading.draw.position + 1
        return {
            "prompt": reading.draw.prompt,
            "position": reading.draw.position,
            "context": list(ids[max(0, end - SHOWN) : end]),
            "best": list(reading.best),
            "overlap": [reading.low, reading.high],
            "broken": reading.broken or None,
        }
