"""Why a store cannot be opened. Each message says what to do; nothing in the folder has been changed."""

from __future__ import annotations

from gaugeblock.reference.kv.pages import KVError


class StoreBusy(KVError):
    """Another process (or another store of this one) has the folder."""


class StoreMismatch(KVError):
    """The folder belongs to another version, another model or something else."""


class StoreUnwritable(KVError):
    """The folder cannot be created, or not be written to."""
