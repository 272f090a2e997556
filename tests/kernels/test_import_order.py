"""The interpreter runs every op also where something imported Triton before the kernels did."""

import os
import subprocess
import sys

SCRIPT = """
import triton  # decorates its own library here: what kernels call of it must not be decorated
from gaugeblock.fixtures.targets.kernels import load_kernels
from gaugeblock.kernels.contract import load_contracts
kernels = load_kernels(None)
for op in load_contracts().values():
    case = op.make(3, op.sizes.usual, op.dtypes[0], 1, "normal")
    for config in (None, *op.configs):
        kernels.call(op, kernels.place(case), {**case.params, "config": config})
"""


def test_triton_may_be_imported_first():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr[-1500:]
