"""Command lines of the known routers, and what is refused in a command template."""

from __future__ import annotations

import json

import pytest

from gaugeblock.fixtures.errors import EnvironmentFault, KitError
from gaugeblock.fixtures.targets.router_launch import (
    FEATURES,
    LAUNCHERS,
    LabConfig,
    command_launcher,
    launcher,
    reference_launcher,
)

URLS = ["http://127.0.0.1:1", "http://127.0.0.1:2"]


def test_a_template_gets_one_argument_a_worker() -> None:
    build = command_launcher("my-router --policy {policy} --workers {worker_urls} --port={port}").build
    assert build(LabConfig(policy="random"), URLS, 7) == [
        *("my-router", "--policy", "random", "--workers", *URLS, "--port=7"),
    ]


def test_a_template_may_take_the_workers_as_one_argument() -> None:
    build = command_launcher("r '--w={worker_urls_csv}' {port}").build
    assert build(LabConfig(), URLS, 7) == ["r", f"--w={','.join(URLS)}", "7"]


def test_a_word_with_one_worker_is_repeated() -> None:
    build = command_launcher("r --worker={worker_url} --policy {policy} {port}").build
    assert build(LabConfig("session"), URLS, 7) == [
        "r",
        *(f"--worker={url}" for url in URLS),
        "--policy",
        "round_robin",
        "7",
    ]


@pytest.mark.parametrize("template", ["my-router {worker_urls}", "my-router {port}", "my-router"])
def test_a_template_without_workers_or_port_is_refused(template: str) -> None:
    with pytest.raises(KitError, match="needs"):
        command_launcher(template)


def test_an_unknown_placeholder_is_answered_with_the_legal_ones() -> None:
    build = command_launcher("r {worker_urls} {port} {modell}").build
    with pytest.raises(KitError, match=r"modell.*\{policy\}"):
        build(LabConfig(), URLS, 7)


def test_a_template_is_held_to_forwarding_and_what_is_claimed() -> None:
    plain = command_launcher("r {worker_urls} {port}")
    claimed = command_launcher("r {worker_urls} {port}", frozenset({"session-affinity", "breakers", "streaming"}))
    assert plain.features == {"proxy"}
    assert claimed.features == {"proxy", "session-affinity", "breakers"}
    assert "session" in claimed.policies
    assert "session" not in plain.policies


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_claims_known_features(name: str) -> None:
    assert launcher(name).features <= FEATURES.keys()


def test_an_unknown_router_is_answered_with_the_known_ones() -> None:
    with pytest.raises(KitError, match="sglang-router"):
        launcher("sglang-roter")


def test_a_router_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("GAUGEBLOCK_CACHE", str(tmp_path))
    monkeypatch.delenv("GAUGEBLOCK_SMG", raising=False)
    with pytest.raises(EnvironmentFault, match="gaugeblock env install smg"):
        launcher("smg").build(LabConfig(), URLS, 7)


def test_the_reference_gets_its_configuration_and_its_fault() -> None:
    argv = reference_launcher("router-always-ready").build(LabConfig("session", idle_timeout=1.5), URLS, 7)
    fields = json.loads(argv[-1])
    assert argv[argv.index("--fault") + 1] == "router-always-ready"
    assert (fields["worker_urls"], fields["port"], fields["idle_timeout"]) == (URLS, 7, 1.5)
    assert "total_timeout" not in fields
