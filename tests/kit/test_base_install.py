"""Without torch, as the base install is: what needs it says so in one line, with the command that brings it."""

import subprocess
import sys

import pytest

WITHOUT = """
import sys
for name in ("torch", "triton", "safetensors", "tokenizers", "xxhash"):
    sys.modules[name] = None
from gaugeblock.conformance.cli.main import run
run()
"""


@pytest.mark.parametrize(
    "words",
    [
        ["profile"],
        ["profile", "--engine-url", "http://127.0.0.1:9"],
        ["profile", "--trace", "trace.json"],
        ["verify", "--int8", "os"],
        ["teeth", "--fault", "kernels-silu-zeros"],
        ["bench", "similarity"],
        ["calibrate", "--model", "m", "--out", "null.json"],
        ["place", "--device-budget", "1GiB"],
        ["serve", "engine"],
    ],
    ids=" ".join,
)
def test_what_needs_torch_says_so(tmp_path, words):
    command = [sys.executable, "-c", WITHOUT, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    line = done.stderr.removesuffix("\n")
    assert "\n" not in line
    assert "needs torch" in line
    assert "pip install 'gaugeblock[" in line
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_believed_needs_torch(tmp_path, monkeypatch):
    from gaugeblock.fixtures.errors import EnvironmentFault
    from gaugeblock.fixtures.watch.believed import Model

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentFault, match=r"needs torch: pip install 'gaugeblock\[embedded\]'"):
        Model.load(tmp_path)


def test_a_request_under_nsys_needs_no_torch():
    script = WITHOUT.replace("from gaugeblock.conformance.cli.main import run\nrun()", "") + (
        "from gaugeblock.conformance.profiling import nsys, sending"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
