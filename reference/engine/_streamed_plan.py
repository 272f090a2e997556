"""How many tokens a windowed prefill keeps on the device, and in what pieces it streams the rest back."""

from __future__ import annotations

from dataclasses import dataclass

SLACK = 0.05
"""Share of (window + chunk) tokens of KV that staging buffers may take beside the hot window."""

LEAST_PIECE = 64  # tokens: below this a piece costs more in launches than in bytes
BUFFERS = 2  # one is read while the next one is filled


@dataclass(frozen=True)
class Plan:
    """Sizes in tokens. ``keep``: of the past that stays hot between chunks; None keeps all. ``piece``: at most in one
    staging buffer, of one layer. ``buffers``: how many of those.
    """

    chunk: int
    keep: int | None
    piece: int = 0
    buffers: int = 0

    @property
    def limit(self) -> int | None:
        """Most tokens of a full-attention layer that are on the device at once."""
        return None if self.keep is None else self.keep + self.chunk


def plan_stream(window: int, chunk: int, layers: int) -> Plan:
    """Fit the hot past, a chunk and the staging buffers into (window + chunk) tokens and ``SLACK``.

    A staging buffer holds tokens of one layer, so on a deep model the slack is room for large pieces. Where it is not
    even for ``LEAST_PIECE`` tokens (or a chunk, if that is less), the hot window gives up tokens for them.
    """
    slack = SLACK * (window + chunk) * layers  # tokens of one layer
    for buffers in (BUFFERS, 1):
        wanted = max(int(slack / buffers), min(LEAST_PIECE, chunk))
        piece = min(wanted, int((slack + window * layers) / buffers))
        if piece >= 1:
            lost = max(0, -int(-(buffers * piece - slack) // layers))
            return Plan(chunk, window - lost, piece, buffers)
    raise AssertionError("unreachable: a window of one token has room for one")
