"""The catalogue holds together: every check has a fault that trips it, every fault names a check of its layer."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from gaugeblock.conformance.catalogue import render
from gaugeblock.conformance.check import LAYERS, load_checks
from gaugeblock.conformance.verdict import schema
from gaugeblock.fixtures.faults.record import load_faults

CHECKS, UNAVAILABLE = load_checks()
FAULTS = load_faults()


def test_every_layer_loads():
    assert UNAVAILABLE == {}
    assert {check.layer for check in CHECKS.values()} == set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_one_smoke_gate(layer):
    gates = [check.id for check in CHECKS.values() if check.layer == layer and check.gate]
    assert gates == [f"{LAYERS[layer]}-001"]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_every_check_has_a_fault_that_trips_it(check):
    assert check.faults, f"{check.id} cannot be shown to fail: plant a fault for it"
    assert check.bound
    assert all(re.match(r"https?://", source) for source in check.sources), check.sources


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_every_fault_names_a_check_of_its_layer(fault):
    assert fault.check in CHECKS
    assert CHECKS[fault.check].layer == fault.layer
    assert fault.message
    assert fault.source


def test_the_catalogue_is_current():
    path = Path(__file__).resolve().parents[2] / "docs" / "catalogue.md"
    assert path.read_text(encoding="utf-8") == render(), "stale: run `make docs`"


@pytest.mark.parametrize("name", ["verdict", "kills"])
def test_the_shipped_schemas_are_schemas(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))
    json.dumps(schema(name))
