"""The two roots: the kit was misused, or the target is at fault.

``KitError``     the user's or the environment's doing; the message says what to do and lists the legal names.
``TargetFault``  the target did not do what it must; an ``AssertionError``, so a check that raises it has *failed*.

Anything else that escapes from a check is the kit's own bug, outcome ``error``.
"""

from __future__ import annotations

from gaugeblock.fixtures.errors import EnvironmentFault, KitError, TargetFault, TargetGone, legal_name

__all__ = ["EnvironmentFault", "KitError", "TargetFault", "TargetGone", "legal_name"]
