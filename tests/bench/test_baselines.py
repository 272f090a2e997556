"""What an op is held against beside other implementations of it."""

import pytest

from gaugeblock.conformance.bench.baselines import COPIED, COPY, baselines
from gaugeblock.kernels.contract import load_contracts

from .made_up import SMALL


@pytest.mark.parametrize("name", COPIED)
def test_the_copy_reads_and_writes_what_the_op_does(name):
    op = load_contracts()[name]
    case = op.workload("cpu", op.dtypes[-1], **SMALL[name])
    (copy,) = baselines(op)
    written = copy.timed(case)()
    assert (copy.name, copy.kind, copy.judged) == (COPY, "baseline", False)
    assert 2 * written.nbytes == op.bytes_moved(case)
