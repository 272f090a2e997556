"""What an operator decides of warming workers up."""

from __future__ import annotations

from dataclasses import dataclass

from gaugeblock.reference.router.checks import positive, whole
from gaugeblock.reference.router.warm_prompts import load_prompts


@dataclass(frozen=True, kw_only=True)
class WarmConfig:
    """A worker that joins or comes back is sent prompts before it gets traffic, each for one token of answer.

    They are those of ``warm_file`` (a JSON string or request body a line) and the ``warm_prefixes`` hottest prefixes
    that this router has seen: what at least two requests shared, ``warm_head_bytes`` of it at least. All this takes at
    most ``warm_timeout`` seconds, with ``warm_concurrency`` requests at a time; then the worker joins, warm or not.

    Raises:
        ValueError: naming the field, the value and what is legal.
    """

    warm_file: str | None = None
    warm_prefixes: int = 0
    warm_head_bytes: int = 512
    warm_timeout: float = 10.0
    warm_concurrency: int = 4

    def check_warm(self) -> None:
        """Raise ``ValueError`` if a field is not legal, the lines of the file among them."""
        if self.warm_file is not None and not isinstance(self.warm_file, str):
            raise ValueError(f"warm_file must be the path of a file, or null; got {self.warm_file!r}")
        if self.warm_file is not None:
            load_prompts(self.warm_file, 0)
        whole("warm_prefixes", self.warm_prefixes, 0)
        whole("warm_head_bytes", self.warm_head_bytes, 1)
        whole("warm_concurrency", self.warm_concurrency, 1)
        positive("warm_timeout", self.warm_timeout)
