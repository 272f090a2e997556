"""The reference passes every check of the layers that run in the check's own process."""

import json
import os
import subprocess
import sys

import pytest


def verified(out, *options):
    command = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "verify", *options, "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    return json.loads((out / "verdict.json").read_text())["checks"]


@pytest.mark.parametrize("layer", ["prefill", "kv", "hybrid"])
def test_the_reference_conforms(layer, tmp_path):
    checks = verified(tmp_path, "--layer", layer)
    assert {c["outcome"] for c in checks if c["layer"] == layer} == {"passed"}


def test_a_plain_int8_of_somebody_else_conforms(tmp_path):
    """Neither rotated nor calibrated: what holds for the reference's own recipe alone is not asked of it."""
    checks = verified(tmp_path, "--int8", "gaugeblock.reference.hybrid.int8")
    ids = {f"HYB-{number:03}" for number in (1, 2, 3, 4, 25, 26, 27, 67)}
    assert {c["id"] for c in checks} == ids
