"""Bad input and broken targets: one clear line, the right exit code, a verdict with its footer, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "gaugeblock.conformance.cli.main"]


def run(*args, env=None, timeout=90):
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}
    )


@contextmanager
def server(handle):
    """A loopback server whose every request is answered by ``handle(handler)``; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            handle(self)

        do_POST = do_GET  # noqa: N815 # the name that http.server calls

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()


def answer(status, body, kind="application/json"):
    def handle(handler):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return handle


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["verify", "--layer", "enigne"], ["unknown layer 'enigne'", "Did you mean 'engine'", "prefill"]),
        (
            ["verify", "--check", "ENG-999"],
            ["unknown check 'ENG-999'. Did you mean 'ENG-0", "Legal: ENG-001 to 043, HYB-001"],
        ),
        (["verify", "--check", "ker-001"], ["unknown check 'ker-001'. Did you mean 'KER-001'? Legal: "]),
        (["verify", "--fault", "nope"], ["unknown fault 'nope'", "`gaugeblock faults` lists"]),
        (["verify", "--fault", "engine-n-is-ignore"], ["Did you mean 'engine-n-is-ignored'"]),
        (["verify", "--layer", "kernels", "--engine-url", "http://127.0.0.1:9"], ["no target for the layer 'kernels'"]),
        (["verify", "--layer", "engine", "--op", "softmax"], ["--op names an op of the kernels"]),
        (["verify", "--engine-url", "localhost:1"], ["is not a URL", "http://HOST:PORT"]),
        (["verify", "--engine-url", "http://127.0.0.1:9", "--model", "nowhere"], ["no model folder", "config.json"]),
        (["verify", "--skip", "ENG-002"], ["a skip needs a reason"]),
        (["verify", "--expected-failures", "nowhere.txt"], ["cannot read the expected failures"]),
        (["verify", "--timeout", "-1"], ["must be positive"]),
        (["verify", "--timeout", "nan"], ["must be positive", "got nan"]),
        (["verify", "--timeout", "inf"], ["must be positive", "got inf"]),
        (["verify", "--router", "smgg"], ["unknown router 'smgg'", "Did you mean 'smg'", "sglang-router"]),
        (["verify", "--router-cmd", "mine --port 1"], ["the router command needs {port}"]),
        (["verify", "--kernels", "no.such.ops"], ["no module 'no.such.ops'", "PYTHONPATH"]),
        (["verify", "--layer", "kernels", "--kernels", "math"], ["--kernels: 'math' holds none of the ops"]),
        (["verify", "--kv", "no.such.kv"], ["no module 'no.such.kv'", "PYTHONPATH"]),
        (["verify", "--kv", "math"], ["no function make_kv_target(pages, below)"]),
        (["verify", "--kv", "builtins:slice"], ["slice(4, 4) gave slice(4, 4, None), which lacks name, page_tokens"]),
        (["verify", "--kv", "builtins:isinstance"], ["'builtins:isinstance' gives no KV manager", "raised TypeError"]),
        (["verify", "--int8", "no.such.int8"], ["no module 'no.such.int8'", "PYTHONPATH"]),
        (["verify", "--int8", "math"], ["'math' lacks quantize and linear"]),
        (["verify", "--claim", "chatt"], ["unknown feature 'chatt'", "Did you mean 'chat'"]),
        (["verify", "--nope"], ["No such option"]),
        (["serve", "engine", "--model", "nowhere"], ["no model folder", "config.json"]),
        (["serve", "router"], ["a router needs workers", "--config FILE"]),
        (["serve", "router", "--config", "/nowhere.toml"], ["cannot read /nowhere.toml"]),
        (["serve", "router", "--worker-url", "garbage"], ["must look like http://HOST:PORT"]),
        (["serve", "router", "--worker-url", "http://127.0.0.1:9", "--policy", "best"], ["cache_aware", "got 'best'"]),
        (["serve", "router", "--worker-url", "http://127.0.0.1:9", "--port", "99999"], ["65535"]),
        (["serve", "engine", "--quantized-path", "w.int8"], ["--quantized-path", "give --quantization int8, too"]),
        (["teeth", "--layer", "roter"], ["unknown layer 'roter'", "router"]),
        (["place", "--device-budget", "9" * 400 + "GiB"], ["is more than any device holds"]),
        (["watch", "http://127.0.0.1:9", "--calibration", "c", "--interval", "nan"], ["--interval", "no number of"]),
        (["watch", "http://127.0.0.1:9", "--calibration", "c", "--timeout", "nan"], ["--timeout", "no number of"]),
        (["watch", "http://127.0.0.1:9", "--calibration", "c", "--interval", "inf"], ["--interval", "range"]),
        (["watch", "http://127.0.0.1:9", "--calibration", "c", "--seed", "-1"], ["--seed", "range"]),
        (
            ["watch", "http://127.0.0.1:9", "--calibration", "c", "--patience", "9" * 400 + "d"],
            ["a duration of so many"],
        ),
        (["compare", "http://127.0.0.1:9", "http://127.0.0.1:9", "--timeout", "nan"], ["--timeout", "no number of"]),
        (
            ["compare", "http://127.0.0.1:9", "http://127.0.0.1:9", "--out", "/dev/null/c"],
            ["name another file with --out"],
        ),
        (["teeth", "--out", "/dev/null/kills.json"], ["name another file with --out"]),
        (["chekcs"], ["unknown command 'chekcs'", "Did you mean 'checks'"]),
    ],
    ids=lambda value: " ".join(value)[:80] if isinstance(value, list) else value,
)
def test_misuse_is_one_line_that_lists_what_is_legal(args, words):
    done = run(*args)
    assert done.returncode == 2, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr) < 2000, "too much to read"


def test_unreachable_engine_exits_4_with_one_line_and_a_verdict(tmp_path):
    done = run("verify", "--engine-url", "http://127.0.0.1:9", "--out", str(tmp_path))
    assert done.returncode == 4
    assert "Traceback" not in done.stderr + done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("no engine to check: http://127.0.0.1:9")
    assert lines[-1] == "result: error"
    assert done.stdout.count("127.0.0.1:9") == 1, done.stdout
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["result"] == "error"
    assert verdict["footer"]["complete"] is False
    assert "127.0.0.1:9" in verdict["message"]


@pytest.mark.parametrize(
    "handle",
    [
        answer(200, b"<html>hello</html>", "text/html"),
        answer(404, {"detail": "Not Found"}),
        answer(200, {"object": "list"}),
        answer(500, b"oops", "text/plain"),
    ],
    ids=["a web site", "404", "JSON of another service", "500"],
)
def test_a_url_that_is_no_engine_exits_4(handle):
    with server(handle) as url:
        done = run("verify", "--engine-url", url)
    assert done.returncode == 4, done.stdout + done.stderr
    assert url in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_wrong_api_key_exits_4_and_is_never_shown(tmp_path):
    with server(answer(401, {"error": {"message": "bad key"}})) as url:
        done = run("verify", "--engine-url", url, "--out", str(tmp_path), env={"GAUGEBLOCK_API_KEY": "s3cr3t-key"})
    assert done.returncode == 4
    assert "refused the API key (401)" in done.stdout
    assert "GAUGEBLOCK_API_KEY" in done.stdout
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "s3cr3t-key" not in done.stdout + done.stderr + written


def test_a_key_that_is_wanted_and_not_there_is_said_with_the_option_that_names_its_variable():
    with server(answer(401, {"error": {"message": "no key"}})) as url:
        done = run("verify", "--engine-url", url, "--api-key-env", "NOSUCHVAR")
    assert done.returncode == 4
    assert "wants an API key and was sent none (401)" in done.stdout
    assert "the variable that --api-key-env names" in done.stdout


def test_the_summary_comes_before_a_verdict_that_cannot_be_written(tmp_path):
    (tmp_path / "verdict.json.tmp").mkdir()
    done = run("verify", "--engine-url", "http://127.0.0.1:9", "--out", str(tmp_path))
    assert done.returncode == 4
    assert done.stdout.splitlines()[-1] == "result: error"
    assert "written:" not in done.stdout
    assert done.stderr.splitlines() == [
        f"gaugeblock: cannot write {tmp_path}/verdict.json: Is a directory; name another folder with --out"
    ]


def test_unreachable_router_exits_4_with_one_line():
    done = run("verify", "--router-url", "http://127.0.0.1:9", "--layer", "router")
    assert done.returncode == 4
    assert "Look at" not in done.stdout
    assert done.stdout.count("127.0.0.1:9/v1/models refused the connection") == 1, done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_hung_engine_ends_within_its_limit():
    release = threading.Event()

    def hang(handler):
        release.wait(60)

    with server(hang) as url:
        begin = time.monotonic()
        done = run("verify", "--engine-url", url)
        seconds = time.monotonic() - begin
        release.set()
    assert done.returncode == 4
    assert seconds < 40
    assert "Traceback" not in done.stderr + done.stdout


def test_unwritable_out_is_said_in_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = run("verify", "--engine-url", "http://127.0.0.1:9", "--out", str(blocked / "sub"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert "--out" in done.stderr + done.stdout


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads child processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["Ctrl-C", "TERM", "KILL"])
def test_no_process_outlives_an_interrupted_run(tmp_path, number):
    process = subprocess.Popen(
        [*COMMAND, "verify", "--layer", "engine", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        servers = wait_for(lambda: [p for p in descendants(process.pid) if listens(p)], 60)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert wait_for(lambda: not any(map(alive, servers)), 15), f"left behind: {servers}"
    if number != signal.SIGKILL:
        assert process.returncode == 3, output
        assert "Traceback" not in output
        verdict = json.loads((tmp_path / "verdict.json").read_text())
        assert verdict["result"] == "partial"
        assert verdict["footer"]["complete"] is False


def descendants(pid):
    try:
        children = children_of(pid)
    except FileNotFoundError:
        return []
    return children + [p for child in children for p in descendants(child)]


def listens(pid):
    """Whether a process has a listening TCP socket, by its open sockets."""
    try:
        links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    except OSError:
        return False
    inodes = {row[9] for row in rows if row[3] == "0A"}
    return any(link.startswith("socket:[") and link[8:-1] in inodes for link in links)


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    return condition()


def test_port_9_is_closed_here():
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", 9)) != 0
