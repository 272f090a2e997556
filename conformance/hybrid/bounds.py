"""The tiny model's calibrated bounds: between right variants and the mildest fault, all measured."""

from __future__ import annotations

from gaugeblock.conformance.similarity import Gate

GATE = Gate(tail=0.82, shortfall=0.75)
"""Anybody's INT8 layer. A plain one: first percentile .884, mean of the lowest 1% .842; scales clipped to 0.9 of the
range: .761 and .652 (the recipe fails it at 0.8)."""

MATES_OVERLAP = 0.9
"""Two right orders of fp32 sums: .949 at the worst position; one activation scale a batch: below .01."""

RECIPE = Gate(worst_prompt=0.98, tail=0.94)
"""The INT8 recipe: see HYB-020, which is stricter than HYB-003 is with anybody's INT8 layer."""
