"""What a check measured, for the verdict."""

from __future__ import annotations

from collections.abc import Callable

Note = Callable[[str], None]
"""The fixture ``note``: call it with one line of what was measured."""
