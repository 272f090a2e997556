"""``gaugeblock load`` from outside: exit codes, load.json, no key anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaugeblock.conformance.cli import load as command
from gaugeblock.fixtures import envs
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.launch import free_port, start_server
from gaugeblock.fixtures.load.bench import Endpoint

KEY = "a-key-that-nobody-may-see"
ENGINE = Path(__file__).with_name("scripted_engine.py")


def gaugeblock(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "load", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, **variables})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine-url", "nowhere"], "is not a URL"),
        (["--engine-url", "http://127.0.0.1:9", "--slo", "ttft<=1s"], "needs a statistic"),
        (["--engine-url", "http://127.0.0.1:9", "--scenario", "D(9,1)"], "at least 2 output tokens"),
        ([], "--engine-url"),
    ],
)
def test_usage_errors_exit_2(words: list[str], said: str) -> None:
    done = gaugeblock(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_environment_exits_4_with_the_remedy(tmp_path: Path) -> None:
    done = gaugeblock("--engine-url", "http://127.0.0.1:9", GAUGEBLOCK_CACHE=str(tmp_path))
    assert done.returncode == 4
    assert done.stderr.strip().splitlines() == [
        "gaugeblock: genai-bench is not installed: run gaugeblock env install genai-bench"
    ]


installed = pytest.mark.skipif(envs.find("genai-bench") is None, reason="run gaugeblock env install genai-bench")


@pytest.fixture(scope="module")
def good() -> Iterator[str]:
    with serve("good") as server:
        yield server.url


def serve(mode: str, ttft: float = 0.05):  # type: ignore[no-untyped-def] # a Server
    port = free_port()
    argv = [sys.executable, ENGINE, str(port), str(ttft), "0.005", str(tiny_model()), mode, KEY]
    return start_server("scripted engine", argv, port=port)


def run(url: str, out: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], dict]:  # type: ignore[type-arg] # JSON
    small = ("--scenario", "D(40,8)", "--concurrency", "2", "--max-requests", "12", "--max-minutes", "1")
    done = gaugeblock("--engine-url", url, "--out", out, *small, *words, GAUGEBLOCK_API_KEY=KEY)
    held = [path for path in out.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert held == []
    assert KEY not in done.stdout + done.stderr
    report = json.loads((out / "load.json").read_text())
    assert report["footer"] == {"complete": True}
    return done, report


def test_an_unreachable_engine_exits_4(tmp_path: Path) -> None:
    if envs.find("genai-bench") is None:
        pytest.skip(reason="genai-bench is not installed: run gaugeblock env install genai-bench")
    done = gaugeblock("--engine-url", "http://127.0.0.1:9", "--out", tmp_path)
    assert done.returncode == 4
    assert "nothing listens" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@installed
@pytest.mark.slow
def test_met_and_missed(good: str, tmp_path: Path) -> None:
    done, report = run(good, tmp_path / "met", "--slo", "ttft.p50<=5s", "--slo", "error_rate<=0", "--cache", "cold")
    assert (done.returncode, report["result"]) == (0, "met"), done.stdout
    assert report["metrics"]["output_tokens_mean"] == 8
    assert report["metrics"]["requests"] >= 12
    done, report = run(good, tmp_path / "missed", "--slo", "ttft.p50<=1ms")
    assert (done.returncode, report["result"]) == (1, "missed"), done.stdout
    assert report["client_check"]["calibration"]["truth_median"]["ttft"] >= 0.05


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "message"),
    [("all-fail", "requests failed"), ("echo-key", "[hidden]"), ("one-piece", "in one piece each")],
)
def test_runs_that_fail_exit_1_with_one_line(mode: str, message: str, tmp_path: Path) -> None:
    with serve(mode) as server:
        done, report = run(server.url, tmp_path, "--slo", "ttft.p95<=1s")
    assert (done.returncode, report["result"]) == (1, "failed")
    assert message in report["message"]


@installed
@pytest.mark.slow
def test_failing_requests_miss_the_error_rate(tmp_path: Path) -> None:
    with serve("every-third-fails") as server:
        done, report = run(server.url, tmp_path, "--slo", "error_rate<=0")
    assert done.returncode == 1
    assert report["metrics"]["error_rate"] == pytest.approx(1 / 3, abs=0.1)
    assert report["metrics"]["error_codes"].keys() == {"500"}


@installed
@pytest.mark.slow
def test_a_busy_client_is_inconclusive(tmp_path: Path) -> None:
    with serve("good", ttft=0.02) as server:
        # the server keeps 25 ms; that the client cannot show it at 32 in flight is no fault of the server
        crowd = ("--concurrency", "32", "--max-requests", "150", "--slo", "ttft.p99<=25ms")
        done, report = run(server.url, tmp_path, *crowd)
    assert (done.returncode, report["result"]) == (3, "inconclusive"), done.stdout
    assert report["slo"][0]["disputed"] is True


@installed
@pytest.mark.slow
def test_an_interrupt_ends_the_load_generator(good: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "load", "--engine-url", good, "--out", tmp_path]
    many = ["--concurrency", "1", "--max-requests", "100000"]
    child = subprocess.Popen(
        [*command, *many], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "GAUGEBLOCK_API_KEY": KEY}
    )
    try:
        group = wait_for_bench(tmp_path)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 3
    assert said.decode().strip().splitlines()[-1] == "gaugeblock: interrupted"
    assert not Path(f"/proc/{group}").exists()


def wait_for_bench(out: Path) -> int:
    """Return the id of the process that runs genai-bench into ``out``, once it has begun to write."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (out / "run" / "run").is_dir():
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if f"{out}".encode() in (line := (folder / "cmdline").read_bytes()) and b"bench_entry" in line:
                        return int(folder.name)
        time.sleep(0.1)
    raise AssertionError(f"genai-bench did not begin to write into {out}")


def test_a_folder_of_the_users_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    endpoint = Endpoint("http://127.0.0.1:9", "m", tiny_model(), None)
    monkeypatch.setattr(command.envs, "require", lambda name: None)
    monkeypatch.setattr(command, "find_endpoint", lambda *_: endpoint)
    monkeypatch.setattr(command, "run_load", lambda *_: pytest.fail("it ran"))
    with pytest.raises(KitError, match="was not made by an earlier run"):
        command.load.main(["--engine-url", "http://127.0.0.1:9", "--out", str(tmp_path)], standalone_mode=False)
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"
