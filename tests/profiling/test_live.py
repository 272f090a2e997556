"""A live engine is profiled through its own endpoints; where that cannot be, the message says why and what to do."""

from __future__ import annotations

import gzip
import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from gaugeblock.conformance.cli.main import cli
from gaugeblock.conformance.profiling import live, nsys
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.fixtures.launch import free_port

from . import fake_nsys
from .made import named, op, trace

ROW = [1, 16, 256]
NORM = [op("aten::add", ROW, ROW), *named("pow mean add rsqrt mul mul", ROW)]
META = {"id": "r", "finish_reason": {"type": "length", "length": 2}, "prompt_tokens": 8, "completion_tokens": 2}


class Handler(BaseHTTPRequestHandler):
    """Speaks enough of SGLang: models, generate, start_profile, stop_profile."""

    def log_message(self, *_):
        """Say nothing."""

    def answer(self, status, data):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = {
            "/v1/models": {"data": [{"id": "m"}]},
            "/get_model_info": {"model_path": "/nowhere"},
            "/get_server_info": {"version": "0.5.15", "dtype": "float32"},
        }
        if self.path in self.server.script:
            return self.answer(self.server.script[self.path], {})
        return self.answer(200, known[self.path]) if self.path in known else self.answer(404, {})

    def do_POST(self):
        script = self.server.script
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
        script["seen"].append((self.path, body))
        if self.path == "/generate":
            self.answer(200, {"text": "x", "output_ids": [1, 2], "meta_info": META})
        elif self.path in ("/start_profile", "/stop_profile"):
            status = script.get(self.path, 200)
            if self.path == "/stop_profile" and script.get("writes", True):
                write(Path(script["folder"]))
            if self.path == "/start_profile" and status == 200:
                script["folder"] = body["output_dir"]
            self.answer(status, b"why not")
        else:
            self.answer(404, {})


def write(folder: Path) -> None:
    whole = json.dumps(trace(all=[*NORM, op("aten::linear", ROW, [256, 256])])).encode()
    (folder / "1-TP-0.trace.json.gz").write_bytes(gzip.compress(whole))


@contextmanager
def engine(**script):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.script = {"seen": [], **{key.replace("__", "/"): value for key, value in script.items()}}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.script
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_the_trace_of_an_engine_is_read(tmp_path):
    with engine() as (url, script):
        study = live.profile_engine(url, None, 8, 2, tmp_path)
    assert [c.op for c in study.candidates] == ["add_rmsnorm"]
    assert study.source == f"sglang at {url}"
    assert study.dtype == "float32"
    paths = [path for path, _ in script["seen"] if path in ("/generate", "/start_profile", "/stop_profile")]
    assert paths == ["/generate", "/start_profile", "/generate", "/stop_profile"]
    prompts = [body["input_ids"] for path, body in script["seen"] if path == "/generate" and body]
    assert prompts[0][0] != prompts[1][0]  # the warm-up leaves no prefix in the cache
    assert {len(ids) for ids in prompts} == {8}
    start = next(body for path, body in script["seen"] if path == "/start_profile")
    assert start["record_shapes"] is True
    assert Path(start["output_dir"]).is_absolute()


def test_the_model_is_profiled_beside_the_engine(tmp_path):
    """The engine keeps its credentials, the model its dtype; each gets a report of its own."""
    words = ["--prompt-tokens", "8", "--decode-tokens", "2", "--dtype", "fp32", "--device", "cpu", "--no-fuse"]
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "profile.json").write_text("an earlier run's")
    with engine() as (url, script):
        arguments = ["profile", "--model", str(tiny_model()), "--engine-url", url, *words, "--out", str(tmp_path)]
        result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert (result.exception, result.return_value) == (None, 0)
    assert "/start_profile" in [path for path, _ in script["seen"]]
    reports = [json.loads((folder / "profile.json").read_text()) for folder in (tmp_path / "engine", tmp_path)]
    assert [report["source"] for report in reports] == [f"sglang at {url}", str(tiny_model())]
    assert {report["footer"]["complete"] for report in reports} == {True}
    assert result.stdout.index(f"sglang at {url}") < result.stdout.index(str(tiny_model()))


def test_a_profile_is_not_lost_for_want_of_the_dtype(tmp_path):
    with engine(**{"/get_server_info": 500}) as (url, _):
        assert live.profile_engine(url, None, 8, 2, tmp_path).dtype == "the engine's dtype"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"__start_profile": 404}, "has no /start_profile"),
        ({"__start_profile": 405}, "has no /start_profile"),
        ({"__start_profile": 401}, "admin key"),
        ({"__start_profile": 500}, "did not start to profile: 500"),
        ({"__stop_profile": 500}, "did not stop profiling"),
    ],
)
def test_an_engine_that_cannot_be_profiled_is_answered_in_one_line(tmp_path, script, said):
    with engine(**script) as (url, _), pytest.raises(KitError, match=said) as refused:
        live.profile_engine(url, None, 8, 2, tmp_path)
    assert url in str(refused.value)


def test_a_trace_on_another_machine_is_said_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "WRITTEN", 0.3)
    with engine(writes=False) as (url, _), pytest.raises(KitError, match="--trace FILE"):
        live.profile_engine(url, None, 8, 2, tmp_path)


def test_a_trace_of_an_earlier_run_is_not_taken_for_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "WRITTEN", 0.3)
    (tmp_path / "engine").mkdir()
    write(tmp_path / "engine")
    with engine(writes=False) as (url, _), pytest.raises(KitError, match="no trace came"):
        live.profile_engine(url, None, 8, 2, tmp_path)


def test_nobody_there_is_the_environments_fault(tmp_path):
    with pytest.raises(EnvironmentFault, match="no engine"):
        live.profile_engine(f"http://127.0.0.1:{free_port()}", None, 8, 2, tmp_path)


def test_an_engine_under_nsys_gets_one_request_and_is_ended(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", f"{fake_nsys.install(tmp_path / 'bin')}:{os.environ['PATH']}")
    with engine() as (url, script):
        assert nsys.wrap(["sleep", "60"], url, None, 8, 2, tmp_path) == 0
    assert [path for path, _ in script["seen"]].count("/generate") >= 1
    assert "engine.nsys-rep" in capfd.readouterr().out
    assert (tmp_path / "engine.nsys-rep").read_text() == "report\n"


def test_an_engine_that_ends_under_nsys_before_it_answers_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{fake_nsys.install(tmp_path / 'bin')}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentFault, match="ended"):
        nsys.wrap(["false"], f"http://127.0.0.1:{free_port()}", None, 8, 2, tmp_path)
