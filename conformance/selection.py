"""What the user wants run: layers, ids, levels, skips, expected failures; every unknown name is refused."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gaugeblock.conformance.check import LAYERS, Check
from gaugeblock.fixtures.errors import KitError, legal_name


@dataclass(frozen=True)
class Selection:
    """The part of the catalogue that a run is about."""

    layers: tuple[str, ...] = tuple(LAYERS)
    ids: frozenset[str] = frozenset()
    level: str = "extended"
    skips: dict[str, str] = field(default_factory=dict)
    expected_failures: dict[str, str] = field(default_factory=dict)
    ops: frozenset[str] = frozenset()  # of the kernels; empty means all
    full_layer: str | None = None  # when set, smoke gates are in, and of other layers they alone

    def wants(self, check: Check) -> bool:
        """Whether the check is selected by id and level (its layer is in scope already)."""
        if self.full_layer is not None and (check.gate or check.layer != self.full_layer):
            return check.gate
        return (not self.ids or check.id in self.ids) and (self.level == "extended" or check.level == "core")

    def narrowed(self, layers: tuple[str, ...], scope: tuple[str, ...]) -> Selection:
        """Return the selection for some layers of those that the targets speak about.

        Raises:
            KitError: a layer has no target in this run.
        """
        for layer in layers:
            if layer not in scope:
                raise KitError(f"no target for the layer {layer!r}; the targets given speak about: {', '.join(scope)}")
        return replace(self, layers=layers)

    def validate(self, known: dict[str, Check]) -> None:
        """Raise :class:`KitError` for an id that no check has."""
        for check_id in (*self.ids, *self.skips, *self.expected_failures):
            legal_name("check", check_id, known)


def parse_skips(entries: list[str]) -> dict[str, str]:
    """Parse ``ID=REASON`` options; the reason is mandatory."""
    skips = {}
    for entry in entries:
        check_id, _, reason = entry.partition("=")
        if not reason.strip():
            raise KitError(f"a skip needs a reason: ID=REASON, got {entry!r}")
        skips[check_id.strip()] = reason.strip()
    return skips


def read_expected_failures(path: str | None) -> dict[str, str]:
    """Read lines ``ID: reason``; blank lines and ``#`` comments are allowed.

    Raises:
        KitError: the file is missing or no text, or a line has no reason.
    """
    if path is None:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise KitError(f"cannot read the expected failures {path!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KitError(f"cannot read the expected failures {path!r}: it is no UTF-8 text ({error.reason})") from error
    expected = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        check_id, _, reason = line.partition(":")
        if not reason.strip():
            raise KitError(f"{path}:{number}: write `ID: reason`, got {line!r}")
        expected[check_id.strip()] = reason.strip()
    return expected
