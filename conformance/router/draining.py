"""How a check tells a router to stop, and sees that it has heard."""

from __future__ import annotations

import signal
import time

from gaugeblock.fixtures.errors import TargetFault
from gaugeblock.fixtures.targets.router import RouterLab
from gaugeblock.fixtures.targets.wire import Limits

PATIENCE = 3.0  # seconds


def tell_to_stop(lab: RouterLab) -> None:
    """Send SIGTERM and wait until a new request is not served any more.

    Raises:
        AssertionError: it still is after ``PATIENCE`` seconds.
    """
    lab.server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while _serves(lab):
        assert time.monotonic() < deadline, f"{PATIENCE:g} s after SIGTERM the router still serves new requests"
        time.sleep(0.02)  # a router that stops tells nobody


def _serves(lab: RouterLab) -> bool:
    try:
        return lab.wire.call("GET", "/v1/models", limits=Limits(1.0, 1.0, 1.0)).ok
    except TargetFault:
        return False
