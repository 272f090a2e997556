"""Ctrl-C that is never lost: Python drops a KeyboardInterrupt that strikes inside a finalizer or a weakref callback.

It reports such an exception to ``sys.unraisablehook`` and goes on. Closing a pool of connections is done in one, so a
run that asks servers questions all the time would lose about one Ctrl-C in twenty.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, SimpleNamespace
from typing import Any

_once = SimpleNamespace(struck=False)  # an interrupt was raised, and Python has not dropped it

DELAY = 0.02  # seconds: the finalizer that swallowed the interrupt has ended by then


def keep_interrupts() -> None:
    """Have a KeyboardInterrupt that Python drops raised again a moment later, wherever the main thread is then.

    May be called again after somebody else has set ``sys.unraisablehook``: that hook sees all other exceptions.
    """
    others = sys.unraisablehook
    if getattr(others, "keeps_interrupts", False):
        return

    main = threading.main_thread()

    def hook(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            others(dropped)
        elif threading.current_thread() is main:
            _once.struck = False
            again = threading.Timer(DELAY, signal.pthread_kill, (main.ident, signal.SIGINT))  # also ends a wait
            again.daemon = True
            again.start()

    hook.keeps_interrupts = True  # type: ignore[attr-defined]  # a function may carry a mark
    sys.unraisablehook = hook


def interrupt_once() -> None:
    """From now on raise KeyboardInterrupt at the first SIGINT alone: a second would strike while the first is obeyed.

    For a process that gets it twice, from the terminal and from the one who started it. Call it in the main thread.
    """
    _once.struck = False
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _once.struck:
        _once.struck = True
        raise KeyboardInterrupt
