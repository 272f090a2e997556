"""Golden cases are whole, used, unedited and made by another hand; what is wrong with one is said by file and line."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gaugeblock.conformance.check import load_checks
from gaugeblock.conformance.golden import digest_of, golden_folder, goldens, load_family, spell
from gaugeblock.conformance.golden_update import differences, require_embedded, update_goldens
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.faults.record import load_faults
from gaugeblock.fixtures.goldens import FAMILIES
from gaugeblock.fixtures.goldens.simulators import SIMULATORS
from gaugeblock.fixtures.targets.options import TargetOptions

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy to spoil."""
    for family in FAMILIES:
        shutil.copytree(golden_folder() / family, tmp_path / family)
    return tmp_path


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None], *, sign: bool = False) -> None:
    """Change the lines of a file; ``sign`` brings the provenance up to it, so that only the change is wrong."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(lines)
    if sign:
        lines[0] |= {"cases": len(lines) - 1, "sha256": digest_of([spell(line) for line in lines[1:]])}
    path.write_text("".join(spell(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_used_by_the_check_that_it_names(name: str) -> None:
    family = FAMILIES[name]
    record = load_checks((family.layer,))[0][family.check]
    assert f'goldens("{name}")' in inspect.getsource(import_module(record.module))
    assert len([fault for fault in load_faults().values() if fault.check == family.check]) >= 2


@pytest.mark.parametrize("name", FAMILIES)
def test_shipped_cases_load_and_say_where_they_come_from(name: str) -> None:
    for file in load_family(name, golden_folder()).values():
        assert file.provenance["made_by"] == FAMILIES[name].made_by
        assert "--update-golden" in file.provenance["command"]
        assert len(file.cases) >= 5


@pytest.mark.parametrize(
    ("name", "file", "change"),
    [
        ("prefill", "chunks", lambda lines: lines[1]["k"][0].__setitem__(0, lines[1]["k"][0][0] + 1e-5)),
        ("eviction", "traces", lambda lines: lines[1].update(capacity=4)),
        ("eviction", "long", lambda lines: lines[1:3].reverse() or lines.insert(1, lines.pop(2))),
        ("eviction", "traces", lambda lines: lines[0].update(sha256="0" * 64)),
        ("routing", "traces", lambda lines: lines[1].update(seed=4)),
    ],
)
def test_an_edited_file_fails(folder: Path, name: str, file: str, change: Any) -> None:
    rewrite(folder / name / f"{file}.jsonl", change)
    with pytest.raises(KitError, match=rf"golden/{name}/{file}.jsonl was edited.*--update-golden"):
        load_family(name, folder)


def test_a_case_taken_out_fails(folder: Path) -> None:
    rewrite(folder / "eviction/traces.jsonl", lambda lines: lines.pop())
    with pytest.raises(KitError, match=r"has 11 cases, its provenance counts 12"):
        load_family("eviction", folder)


def test_a_case_that_no_check_takes_fails(folder: Path) -> None:
    with pytest.raises(KitError, match=r"no check used long.jsonl: size-long, long.jsonl: gdsf-long") as caught:
        take_all_but_some(folder)
    assert "lru-long" not in str(caught.value)


def take_all_but_some(folder: Path) -> None:
    with goldens("eviction", folder) as files:
        assert len(list(files["traces"])) == 12
        next(iter(files["long"]))


def test_a_check_that_fails_says_so_itself(folder: Path) -> None:
    with pytest.raises(AssertionError, match="the check's own"), goldens("eviction", folder):
        raise AssertionError("the check's own")


@pytest.mark.parametrize("path", ["eviction/more.jsonl", "hybrid/plans.jsonl"])
def test_a_file_that_no_check_names_fails(folder: Path, path: str) -> None:
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text("")
    with pytest.raises(KitError, match=rf"golden/{path} is used by no check.*prefill/chunks.jsonl"):
        load_family("prefill", folder)


def test_a_missing_file_fails(folder: Path) -> None:
    (folder / "prefill/chunks.jsonl").unlink()
    with pytest.raises(KitError, match=r"golden/prefill/chunks.jsonl is missing"):
        load_family("eviction", folder)


def test_an_empty_file_fails(folder: Path) -> None:
    (folder / "prefill/chunks.jsonl").write_text("")
    with pytest.raises(KitError, match=r"golden/prefill/chunks.jsonl is empty"):
        load_family("prefill", folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[3].update(capcity=1), r"traces.jsonl:4: unknown field 'capcity'. Did you mean 'capacity'"),
        (lambda lines: lines[3].pop("policy"), r"traces.jsonl:4: field 'policy' is missing. Fields: id, policy, cap"),
        (lambda lines: lines[2].update(capacity="10"), r":3: field 'capacity': '10'; legal is an integer >= 0"),
        (
            lambda lines: lines[2].update(arrivals=[["a", 0]]),
            r":3: field 'arrivals': .* legal is a list of \[key",
        ),
        (lambda lines: lines[2].update(evictions=[[True, "a"]]), r":3: field 'evictions': .* legal is"),
        (lambda lines: lines[2].update(id=lines[1]["id"]), r":3: field 'id': 'lru-use-renews' is taken by line 2"),
        (lambda lines: lines[0].pop("tolerance"), r"traces.jsonl:1: field 'tolerance' is missing"),
        (lambda lines: lines[0].update(schema_version=9), r"traces.jsonl:1: schema_version 9 .*this kit reads 1"),
        (lambda lines: lines[0].update(tolerance={"k": "1"}), r":1: field 'tolerance' is not what this kit holds"),
    ],
)
def test_a_malformed_line_is_named(folder: Path, change: Any, message: str) -> None:
    rewrite(folder / "eviction/traces.jsonl", change, sign="taken" in message)
    with pytest.raises(KitError, match=message):
        load_family("eviction", folder)


@pytest.mark.parametrize(
    ("line", "message"), [("{", r":2: no JSON at column 2"), ("[1]", r":2: list, where an object")]
)
def test_a_line_that_is_no_object_is_named(folder: Path, line: str, message: str) -> None:
    path = folder / "eviction/long.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]), encoding="utf-8")
    with pytest.raises(KitError, match=f"golden/eviction/long.jsonl{message}"):
        load_family("eviction", folder)


@pytest.mark.parametrize(
    ("arrival", "legal"),
    [
        ({"at": 0, "workers": [["x", 0, 0]]}, "a list of {at, workers"),
        ({"at": 0, "workers": []}, "a list of {at, workers"),
        ({"at": 0, "workers": [["x", 0, 1]], "load": 1}, "a list of {at, workers"),
        ({"at": 0, "forget": ""}, "a list of {at, workers"),
    ],
)
def test_a_malformed_arrival_is_named(folder: Path, arrival: dict[str, Any], legal: str) -> None:
    rewrite(folder / "routing/traces.jsonl", lambda lines: lines[2].update(arrivals=[arrival]))
    with pytest.raises(KitError, match=rf"traces.jsonl:3: field 'arrivals': .* legal is {legal}"):
        load_family("routing", folder)


def test_cases_of_another_model_fail(folder: Path) -> None:
    rewrite(folder / "prefill/chunks.jsonl", lambda lines: lines[0]["inputs"].update({"config.json": "0" * 64}))
    with pytest.raises(KitError, match=r"golden/prefill/chunks.jsonl was made for another config.json than this kit"):
        load_family("prefill", folder)


@pytest.mark.parametrize("layer", ["prefill", "kv", "router"])
def test_an_update_restores_what_was_edited_and_a_second_changes_nothing(folder: Path, layer: str) -> None:
    name = next(name for name, family in FAMILIES.items() if family.layer == layer)
    path = folder / name / f"{FAMILIES[name].files[0]}.jsonl"
    shipped = load_family(name, golden_folder())[path.stem].cases

    def spoil(lines: list[dict[str, Any]]) -> None:
        lines[1][{"prefill": "page_size", "kv": "capacity", "router": "seed"}[layer]] = 99
        lines[2]["id"] = "unheard-of"

    rewrite(path, spoil)
    told = list(update_goldens((layer,), folder))
    field = {"prefill": "page_size 99 → 16", "kv": "capacity 99 → 3", "router": "seed 99 → 0"}[layer]
    where = f"golden/{name}/{path.name}"
    assert f"{where}: {shipped[0]['id']}: {field}" in told
    assert f"{where}: {shipped[1]['id']}: new" in told
    assert f"{where}: unheard-of: gone" in told
    restored = load_family(name, folder)[path.stem]
    bounds = {field: bound for field, (bound, _) in FAMILIES[name].tolerance.items()}
    assert [case["id"] for case in restored.cases] == [case["id"] for case in shipped]
    for new, old in zip(restored.cases, shipped, strict=True):
        assert differences(old, new, bounds) == [], new["id"]  # on any machine, to a tenth of the tolerance
    before = {file: file.read_bytes() for file in (folder / name).iterdir()}
    assert all("none changed" in line for line in update_goldens((layer,), folder))
    assert {file: file.read_bytes() for file in (folder / name).iterdir()} == before


def test_an_update_of_an_edited_file_tells_no_noise_beside_the_news(folder: Path, monkeypatch: Any) -> None:
    """Another machine's sums differ in the last digits: they are remade with the rest, and aren't what changed."""
    cases = load_family("prefill", folder)["chunks"].cases
    made = [case | {"k": [[number + 1e-5 for number in row] for row in case["k"]]} for case in cases]
    monkeypatch.setattr(import_module("gaugeblock.fixtures.goldens.prefill"), "make", lambda: {"chunks": made})
    rewrite(folder / "prefill/chunks.jsonl", lambda lines: lines[1].update(page_size=99))
    told = list(update_goldens(("prefill",), folder))
    where = "golden/prefill/chunks.jsonl"
    assert told[0] == f"{where}: {cases[0]['id']}: page_size 99 → 16"
    assert all(
        line.startswith(f"{where}: {case['id']}: k[0][0] ") for line, case in zip(told[1:], cases[1:], strict=False)
    )
    assert len(told) == len(cases) + 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"fault": "golden-head-in-bf16"}, "a planted fault"),
        ({"engine_urls": ("http://127.0.0.1:9",)}, "engine"),
        ({"kernels": "json"}, "kernels"),
        ({"router_name": "reference"}, "router"),
        ({"kv": "json"}, "kv"),
    ],
)
def test_an_update_from_anything_but_the_embedded_reference_is_refused(options: dict[str, Any], what: str) -> None:
    require_embedded(TargetOptions())
    with pytest.raises(KitError, match=f"cannot be updated in a run with .*{what}"):
        require_embedded(TargetOptions(**options))


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "eviction")
    (folder / "eviction").write_text("in the way")
    with pytest.raises(KitError, match=r"cannot write .*traces.jsonl"):
        list(update_goldens(("kv",), folder))


@pytest.mark.parametrize("policy", ["lru", "arc", "s3fifo"])  # libcachesim leaves ties of the others to addresses
def test_the_simulators_miss_as_libcachesim_does(policy: str) -> None:
    library = pytest.importorskip("libcachesim")
    case = next(c for c in load_family("eviction", golden_folder())["long"].cases if c["policy"] == policy)
    numbers = {key: number for number, key in enumerate(dict(case["arrivals"]), 1)}
    other = getattr(library, policy.upper())(cache_size=case["capacity"])
    simulator, held = SIMULATORS[policy](case["capacity"]), set[str]()
    hits, other_hits = [], []
    for key, size in case["arrivals"]:
        hits.append(key in held)
        held.difference_update(simulator.arrive(key, size))
        held.add(key)
        request = library.Request()
        request.obj_id, request.obj_size = numbers[key], size
        other_hits.append(bool(other.get(request)))
    assert 50 < sum(hits) < 250
    assert hits == other_hits


def test_an_installed_kit_has_the_cases(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    for name, family in FAMILIES.items():
        for file in family.files:
            built = tmp_path / "gaugeblock" / "golden" / name / f"{file}.jsonl"
            assert built.read_bytes() == (ROOT / "golden" / name / f"{file}.jsonl").read_bytes()
