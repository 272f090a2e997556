"""``gaugeblock serve engine --placement``: what is wrong is said in one line, and a placement is served over HTTP."""

import json
import subprocess
import sys

import pytest
import requests
from click.testing import CliRunner

from gaugeblock.conformance.cli import serve
from gaugeblock.conformance.cli.sizes import BYTES
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.reference.engine.config import load_config
from gaugeblock.reference.engine.loader import load_weights
from gaugeblock.reference.engine.model import LlamaModel
from gaugeblock.reference.hybrid.operators import operator_names

OPTIONS = ["--port", "0", "--device", "pretend"]
COMMAND = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "serve", "engine", *OPTIONS]


@pytest.fixture(scope="module")
def placement():
    config = load_config(tiny_model())
    names = operator_names(LlamaModel(config, load_weights(tiny_model(), config)))
    return {name: ("host", "device")[number % 2] for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("2GiB", 2 << 30), ("1.5 MiB", 3 << 19), ("3gb", 3 * 10**9), ("512B", 512), (7, 7)],
)
def test_sizes(text, size):
    assert BYTES.convert(text, None, None) == size


@pytest.mark.parametrize(
    ("text", "message"), [("2 GiG", "write a number and one of B, kB, KiB"), ("0", "less than one")]
)
def test_what_is_no_size_is_refused(text, message):
    with pytest.raises(Exception, match=message):
        BYTES.convert(text, None, None)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"lm_head": "gpu"}, [], "operator 'lm_head' is placed on 'gpu'; places are: host, device"),
        ({"head": "host"}, [], "no such operators: head; the model has: model.embed_tokens"),
        ({}, ["--device-budget", "1KiB"], "of its budget of 1024 are left: place operators on the host"),
        ({}, ["--device", "tpu"], "there is no device 'tpu': choose one of auto, pretend, cuda"),
    ],
)
def test_a_placement_that_cannot_run_is_one_line(change, options, message, placement, tmp_path):
    path = tmp_path / "placement.json"
    path.write_text(json.dumps({**placement, **change}))
    done = CliRunner().invoke(serve.engine, [*OPTIONS, "--placement", str(path), *options])
    assert isinstance(done.exception, KitError), done.exception
    assert message in str(done.exception)


def test_a_device_without_a_placement_is_refused():
    for options in (["--device", "pretend"], ["--device-budget", "2GiB"]):
        done = CliRunner().invoke(serve.engine, options)
        assert "give the file, too" in str(done.exception)


def test_a_placement_is_served(placement, tmp_path):
    path = tmp_path / "placement.json"
    path.write_text(json.dumps(placement))
    command = [*COMMAND, "--placement", str(path), "--max-total-tokens", "512", "--device-budget", "64MiB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split(" on ")[1].split()[0]
            sampling = {"max_new_tokens": 4, "temperature": 0, "ignore_eos": True}
            body = {"input_ids": list(range(30)), "sampling_params": sampling}
            answer = requests.post(f"{url}/generate", json=body, timeout=30).json()
            assert answer["meta_info"]["finish_reason"]["type"] == "length"
            assert "gaugeblock_engine_device_faults_total 0" in requests.get(f"{url}/metrics", timeout=30).text
        finally:
            server.terminate()
            assert server.wait(30) == 0
