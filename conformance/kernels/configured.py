"""Cases that name the tile configuration to be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from gaugeblock.fixtures.targets.kernels import REFERENCE, KernelTarget
from gaugeblock.kernels.contract import Case, Op


def with_config(case: Case, config: Any) -> Case:
    """Return the case with a configuration among its parameters and in its label."""
    return replace(case, label=f"{case.label} with {config}", params={**case.params, "config": config})


def configured(kernels: KernelTarget, op: Op, config: Any, cases: Iterable[Case]) -> Iterator[Case]:
    """Yield the cases that a configuration itself computes, and none that another would take over.

    Of a foreign module nobody knows that: there all are yielded.
    """
    for case in cases:
        if kernels.name != REFERENCE or op.fits(case, config):
            yield with_config(case, config)
