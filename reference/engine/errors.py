"""Errors of the engine that are not a client's fault."""


class ModelError(Exception):
    """A model folder that cannot be served. The message names the path and what is needed."""


class ConfigError(ValueError):
    """An ``EngineConfig`` that cannot work. The message names the field, its value and the legal range."""


class DeviceFault(Exception):
    """A device that failed while it ran ``operator``, or while a tensor moved to or from it for that operator."""

    def __init__(self, operator: str, device: str, cause: BaseException) -> None:
        super().__init__(f"device {device!r} failed at {operator}: {type(cause).__name__}: {cause}")
        self.operator = operator
        self.device = device


class PrefillError(ValueError):
    """A call of ``chunked_prefill`` that cannot be exact, or KV that its tier lost. The message says what to do."""
