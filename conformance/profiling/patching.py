"""Put a fused op into a transformers model from outside, and take it out again.

Each fusion patches instances of the modules, never their classes, and works with any implementation that has the op's
signature: our kernel, its eager baseline, or a compiled one. What is patched follows from the modules' structure
(Llama, Mistral, Qwen, SmolLM and relatives share it); that it fits is proved by the outputs, see ``agreement``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Call = Callable[..., Any]


@dataclass(frozen=True)
class Fusion:
    """``install(model, call, patches)`` puts ``call`` in place of op ``op`` and returns the number of places.

    ``composed``: the model runs what the op fuses as operators of their own, so that compiling them together says what
    fusing them is worth. PyTorch's attention is one kernel already.
    """

    op: str
    title: str
    install: Callable[[Any, Call, Patches], int]
    composed: bool = True


@dataclass
class Patches:
    """Attributes that were set on objects, and how to put back what was there."""

    undo: list[Callable[[], None]] = field(default_factory=list)

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute until the end."""
        there = vars(owner).get(name, _MISSING)
        setattr(owner, name, value)
        self.undo.append(lambda: delattr(owner, name) if there is _MISSING else setattr(owner, name, there))

    def restore(self) -> None:
        """Put everything back, the last change first."""
        while self.undo:
            self.undo.pop()()


_MISSING = object()


@contextmanager
def fused(model: Any, fusions: dict[Fusion, Call]) -> Iterator[dict[str, int]]:
    """Replace for the length of a ``with`` block; yields the number of places by op."""
    patches = Patches()
    try:
        yield {fusion.op: fusion.install(model, call, patches) for fusion, call in fusions.items()}
    finally:
        patches.restore()


def never(*_: Any, **__: Any) -> Any:
    """Stand in for an op while places are only counted: an installer prepares nothing for it."""
    raise AssertionError("called while only counting places")
