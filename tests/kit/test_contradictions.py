"""Options that undo one another are refused with both their names; what only looks like it is let through."""

import pytest

from gaugeblock.conformance.check import load_checks
from gaugeblock.conformance.contradictions import refuse_contradictions, refuse_idle_names
from gaugeblock.conformance.selection import Selection
from gaugeblock.conformance.session import read_options
from gaugeblock.conformance.teeth import REACH
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.faults.record import load_faults
from gaugeblock.fixtures.targets.options import TargetOptions

SEVERAL = ("gb_engine_url", "gb_claim", "gb_check", "gb_skip", "gb_op")
URL = "http://127.0.0.1:9"
WORKERS = "http://127.0.0.1:91,http://127.0.0.1:92"
COMMAND = "mine {worker_urls} {port}"
ENGINE_FAULT, ROUTER_FAULT = "engine-n-is-ignored", "router-always-ready"


def read(layers=(), prefix="--", **given):
    """Read options as the command line does; all that is not given is left out."""
    options = {"gb_level": "extended", "gb_api_key_env": "KEY", **{f"gb_{key}": value for key, value in given.items()}}
    return read_options(lambda key: options.get(key, () if key in SEVERAL else None), prefix, layers)


@pytest.mark.parametrize(
    ("layers", "given", "words"),
    [
        ((), {"engine_url": [URL], "fault": ENGINE_FAULT}, ["--fault engine-n-is-ignored", "--engine-url"]),
        ((), {"router_url": URL, "fault": ROUTER_FAULT}, ["--fault router-always-ready", "--router-url"]),
        ((), {"router_cmd": COMMAND, "fault": ROUTER_FAULT}, ["--fault router-always-ready", "--router-cmd"]),
        ((), {"router": "smg", "fault": ROUTER_FAULT}, ["--fault router-always-ready", "--router smg"]),
        (("kernels",), {"fault": ENGINE_FAULT}, ["--fault engine-n-is-ignored", "felt by no layer", "kernels"]),
        ((), {"router_cmd": COMMAND, "fault": ENGINE_FAULT}, ["felt by no layer", "router"]),
        (("engine",), {"claim": ["int8"]}, ["--claim int8", "layer hybrid", "it is about engine"]),
        (("engine",), {"claim": ["chat", "breakers"]}, ["--claim breakers", "layer router"]),
        ((), {"engine_url": [URL], "claim": ["breakers"]}, ["--claim breakers", "engine, load"]),
        (("engine",), {"op": ["softmax"]}, ["--op", "it is about engine"]),
        ((), {"router": "reference", "router_cmd": COMMAND}, ["--router and --router-cmd"]),
        ((), {"router": "smg", "router_cmd": COMMAND}, ["--router and --router-cmd"]),
        ((), {"router": "reference", "router_url": URL}, ["--router-url", "--router reference"]),
        (
            (),
            {"router_cmd": COMMAND, "router_url": URL, "router_workers": WORKERS},
            ["--router-workers", "--router-cmd"],
        ),
        ((), {"router_workers": WORKERS}, ["--router-workers", "name it with --router-url"]),
        ((), {"router_hosts": True, "router_url": URL}, ["--router-hosts", "--router-cmd"]),
        (("kv",), {"check": ["ENG-001"]}, ["ENG-001 is a check of the layer engine", "it is about kv"]),
        (("kv",), {"check": ["KV-001", "ENG-001"]}, ["ENG-001"]),
        ((), {"kernels": "gaugeblock.kernels", "check": ["ENG-001"]}, ["ENG-001", "it is about kernels"]),
        (("kernels",), {"engine_url": [URL]}, ["no target for the layer 'kernels'", "engine, load"]),
    ],
    ids=str,
)
def test_a_contradiction_is_refused_with_both_its_sides(layers, given, words):
    with pytest.raises(KitError) as caught:
        read(layers, **given)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_extended_check_is_not_one_of_the_core():
    name = next(check.id for check in load_checks(("kv",))[0].values() if check.level == "extended")
    with pytest.raises(KitError, match=f"{name} is an extended check, which --level core leaves out"):
        read(check=[name], level="core")


def test_under_pytest_options_are_spelled_as_pytest_has_them():
    with pytest.raises(KitError, match=r"^--gb-fault .* --gb-engine-url"):
        read(prefix="--gb-", engine_url=[URL], fault=ENGINE_FAULT)


@pytest.mark.parametrize(
    ("layers", "given"),
    [
        ((), {"fault": ENGINE_FAULT}),
        ((), {"router": "reference", "fault": ROUTER_FAULT}),
        ((), {"engine_url": [URL], "router": "reference", "fault": ROUTER_FAULT}),
        (("load",), {"fault": ENGINE_FAULT}),
        ((), {"engine_url": [URL], "claim": ["chat", "token-ids"]}),
        (("engine", "router"), {"claim": ["chat", "breakers"]}),
        ((), {"claim": ["int8", "breakers", "chat"]}),
        (("kernels",), {"op": ["softmax"]}),
        ((), {"router_url": URL, "router": "smg"}),
        ((), {"router_url": URL, "router_cmd": COMMAND}),
        ((), {"router_url": URL, "router_workers": WORKERS}),
        ((), {"router_hosts": True}),
        (("kv",), {"check": ["KV-001"], "skip": ["ENG-001=not here"]}),
        ((), {"engine_url": [URL], "router_url": URL, "check": ["RTR-040"]}),
    ],
    ids=str,
)
def test_what_goes_together_is_let_through(layers, given):
    options, selection = read(layers, **given)
    assert selection.layers == (layers or options.layers() or selection.layers)


def test_no_run_of_the_kill_matrix_contradicts_itself():
    known = load_checks()[0]
    for fault in load_faults().values():
        options = TargetOptions(fault=fault.id)
        layers = tuple(dict.fromkeys((*REACH[fault.place], fault.layer)))
        selection = Selection(layers=layers, ids=frozenset({fault.check}) & known.keys(), full_layer=fault.layer)
        refuse_contradictions(options, selection, "--")
        refuse_idle_names(options, selection, known, "--")
