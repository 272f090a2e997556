"""Fixtures of the checks on ``chunked_prefill``, the library call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gaugeblock.conformance.inprocess_fixtures import needs_torch

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.prefill_library import PrefillLibrary


@pytest.fixture(scope="session")
def prefill_library() -> PrefillLibrary:
    """The tiny model in transformers, and the call under check."""
    with needs_torch():
        from gaugeblock.fixtures.targets.prefill_library import load_library
    return load_library()
