"""The reference passes every check of the layers that run in the check's own process."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("layer", ["prefill", "kv", "hybrid"])
def test_the_reference_conforms(layer, tmp_path):
    command = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "verify", "--layer", layer, "--out", tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    checks = json.loads((tmp_path / "verdict.json").read_text())["checks"]
    assert {c["outcome"] for c in checks if c["layer"] == layer} == {"passed"}
