"""Errors of the engine that are not a client's fault."""


class ModelError(Exception):
    """A model folder that cannot be served. The message names the path and what is needed."""


class ConfigError(ValueError):
    """An ``EngineConfig`` that cannot work. The message names the field, its value and the legal range."""


class PrefillError(ValueError):
    """A call of ``chunked_prefill`` that cannot be exact, or KV that its tier lost. The message says what to do."""
