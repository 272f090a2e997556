"""How alike two engines' next-token distributions are, and what passes as the same model.

``compare(reference, other)`` of whole distributions, ``truncated`` and ``summarise`` of top candidates, ``judge`` for
the gate. Needs numpy alone; :mod:`~gaugeblock.conformance.similarity.calibrate` needs torch.
"""

from gaugeblock.fixtures.similarity.gates import GATES, Gate, Judgement, complaints, judge
from gaugeblock.fixtures.similarity.measures import Positions, flips, kl, log_probabilities, overlap, positions, top1
from gaugeblock.fixtures.similarity.summary import Place, Similarity, compare, summarise
from gaugeblock.fixtures.similarity.truncated import Known, kl_bound, known_rows, overlap_bounds, truncated

__all__ = [
    "GATES",
    "Gate",
    "Judgement",
    "Known",
    "Place",
    "Positions",
    "Similarity",
    "compare",
    "complaints",
    "flips",
    "judge",
    "kl",
    "kl_bound",
    "known_rows",
    "log_probabilities",
    "overlap",
    "overlap_bounds",
    "positions",
    "summarise",
    "top1",
    "truncated",
]
