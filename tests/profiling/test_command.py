"""``gaugeblock profile`` from outside: exit codes, messages, and the files it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gaugeblock.fixtures.launch import free_port

from . import fake_nsys
from .made import op, trace

COMMAND = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "profile"]


def gaugeblock(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=110, env=env)


@pytest.fixture
def path_with_nsys(tmp_path):
    return f"{fake_nsys.install(tmp_path / 'bin')}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--model", "/nowhere"], 2, "no model folder at '/nowhere'"),
        (["--model", "a", "--trace", "b"], 2, "--model and --trace exclude each other"),
        (["--engine-url", "http://a", "--trace", "b"], 2, "--engine-url and --trace exclude each other"),
        (["--model", "a", "--nsys", "--", "true"], 2, "--model and --nsys exclude each other"),
        (["--model", "a", "--engine-url", "http://a", "--nsys", "--", "true"], 2, "exclude each other"),
        (["--model", "/nowhere", "--engine-url", "http://127.0.0.1:9"], 2, "no model folder at '/nowhere'"),
        (
            ["--trace", "a.json", "--dtype", "bf16", "--device", "cpu", "--no-fuse", "--prompt-tokens", "4"],
            2,
            "--prompt-tokens, --dtype, --device, --no-fuse would change nothing with --trace",
        ),
        (["--engine-url", "http://a", "--no-fuse"], 2, "--no-fuse would change nothing with --engine-url"),
        (["--nsys", "--decode-tokens", "4", "--", "true"], 2, "--decode-tokens would change nothing with --nsys"),
        (["--api-key-env", "KEY"], 2, "--api-key-env would change nothing with the tiny model"),
        (["--trace", "/nowhere.json"], 2, "cannot read the trace"),
        (["--engine-url", "nowhere"], 2, "is not a URL"),
        (["--engine-url", f"http://127.0.0.1:{free_port()}"], 4, "no engine"),
        (["--nsys"], 2, "needs the command"),
        (["--nsys", "--", "sleep", "1"], 4, "nsys is not on the PATH"),
        (["sleep", "1"], 2, "Only --nsys takes a command"),
        (["--dtype", "fp8"], 2, "fp8"),
        (["--device", "tpu"], 2, "tpu"),
    ],
)
def test_misuse_is_one_line_and_its_code(tmp_path, words, code, said):
    done = gaugeblock("--out", tmp_path, *words, PATH="/usr/bin:/bin")
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "profile.json").exists()


def test_a_folder_that_transformers_cannot_load_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = gaugeblock("--model", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("gaugeblock: transformers cannot load")
    assert done.stderr.count("\n") == 1


def test_a_model_is_profiled_into_a_report_and_a_trace(tmp_path):
    done = gaugeblock(
        "--prompt-tokens", "16", "--decode-tokens", "2", "--no-fuse", "--device", "cpu", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "profile.json").read_text())
    assert (report["schema_version"], report["footer"]) == (1, {"complete": True})
    assert report["workload"] == {"prompt_tokens": 16, "decode_tokens": 2}
    product = next(row for row in report["operators"] if row["operator"] == "aten::mm")
    assert product["launches"] == 3 * (4 * 7 + 1)  # seven linear layers a block, the head; a prefill and two steps
    assert product["roofline"] > 0
    found = {c["op"]: c for c in report["candidates"] if c["title"] != "RMSNorm without a residual"}
    assert {"add_rmsnorm", "silu_and_mul", "rope", "decode_attention", "extend_attention"} == set(found)
    assert found["add_rmsnorm"]["phases"] == {"prefill": 8, "decode": 16}
    assert found["silu_and_mul"]["covered"] is True
    assert report["fused"] == []
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert "fusion candidates" in done.stdout
    again = gaugeblock("--trace", tmp_path / "trace.json", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    read = json.loads((tmp_path / "again" / "profile.json").read_text())
    assert [c["op"] for c in read["candidates"]].count("rope") == 1


def test_nsys_wraps_a_command_and_hands_on_its_end(tmp_path, path_with_nsys):
    out = tmp_path / "out"
    done = gaugeblock("--out", out, "--nsys", "--", sys.executable, "-c", "print('it ran')", PATH=path_with_nsys)
    assert done.returncode == 0, done.stderr
    assert "it ran" in done.stdout
    assert "engine.nsys-rep" in done.stdout
    assert (out / "engine.nsys-rep").read_text() == "report\n"
    failed = gaugeblock("--out", out, "--nsys", "--", sys.executable, "-c", "raise SystemExit(3)", PATH=path_with_nsys)
    assert failed.returncode == 4
    missing = gaugeblock("--out", out, "--nsys", "--", "no-such-engine", PATH=path_with_nsys)
    assert missing.returncode == 2
    assert "no program 'no-such-engine'" in missing.stderr


def test_an_interrupt_ends_what_nsys_wraps_and_keeps_its_report(tmp_path, path_with_nsys):
    mark = tmp_path / "running"
    engine = f"import pathlib, time; pathlib.Path({str(mark)!r}).touch(); time.sleep(60)"
    process = subprocess.Popen(
        [*COMMAND, "--out", str(tmp_path), "--nsys", "--", sys.executable, "-c", engine],
        env={**os.environ, "PATH": path_with_nsys},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.05)  # a file system gives no event to wait for here
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "engine.nsys-rep" in said


def test_the_command_lists_itself_without_loading_torch():
    script = """
import sys
from gaugeblock.conformance.cli.profile import profile
print([name for name in ("torch", "transformers", "triton") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_trace_that_is_read_from_the_default_folder_stays(tmp_path):
    out = tmp_path / "gaugeblock-profile"
    out.mkdir()
    kept = {
        out / "trace.json": json.dumps(trace(all=[op("aten::mm", [4, 8], [8, 4])])),
        out / "trace-fused.json": "an earlier run's",
    }
    for path, text in kept.items():
        path.write_text(text)
    (out / "profile.json").write_text("an earlier run's")
    command = [*COMMAND, "--trace", "gaugeblock-profile/trace.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_text() for path in kept} == kept
    assert json.loads((out / "profile.json").read_text())["trace"] == "trace.json"
    assert done.stdout.splitlines()[-1] == "written: gaugeblock-profile/profile.json"


def test_a_trace_is_never_overwritten_by_its_own_report(tmp_path):
    kept = tmp_path / "profile.json"
    kept.write_text(json.dumps(trace(all=[op("aten::mm", [4, 8], [8, 4])])))
    before = kept.read_text()
    done = gaugeblock("--trace", kept, "--out", tmp_path)
    assert done.returncode == 2
    assert "is read by this command" in done.stderr
    assert kept.read_text() == before
