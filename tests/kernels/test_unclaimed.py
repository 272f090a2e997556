"""A form that a module does not offer is unsupported, also where only the middle of a check asks for it."""

import json
import os
import subprocess
import sys

import pytest

MODULE = """
import torch
from gaugeblock.kernels.arguments import Unclaimed
from gaugeblock.kernels.silu_and_mul import silu_and_mul as reference

def silu_and_mul(x):
    {refusal}
    return reference(x)
"""


@pytest.mark.parametrize(
    ("refusal", "outcome", "message"),
    [
        ("if x.dim() > 2: raise Unclaimed('two dimensions alone')", "unsupported", "two dimensions alone"),
        ("if x.dim() > 2: raise ValueError('two dimensions alone')", "failed", "two dimensions alone"),
        ("if x.dtype != torch.float16: raise Unclaimed('fp16 alone')", "passed", ""),
    ],
)
def test_what_a_module_declines_is_no_failure_and_no_pass(tmp_path, refusal, outcome, message):
    (tmp_path / "declining_ops.py").write_text(MODULE.format(refusal=refusal), encoding="utf-8")
    out = tmp_path / "out"
    words = ["verify", "--kernels", "declining_ops", "--op", "silu_and_mul", "--check", "KER-012", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "gaugeblock.conformance.cli.main", *words]
    subprocess.run(command, env=environment, capture_output=True, timeout=100, check=False)
    (check,) = json.loads((out / "verdict.json").read_text(encoding="utf-8"))["checks"]
    assert check["outcome"] == outcome
    assert message in check["message"]
