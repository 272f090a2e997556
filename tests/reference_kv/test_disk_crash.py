"""Crashes of the disk store: longer scenarios than the checks have, and that the model of a crash is no kinder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gaugeblock.fixtures.crash_io import CrashIO, CrashNow
from gaugeblock.fixtures.crash_runs import Action, enumerate_crashes

SCENARIOS: dict[str, tuple[list[Action], list[Action]]] = {
    "creation": ([], []),
    "first pages": ([], [("put", "ab")]),
    "three pages": ([("put", "a")], [("put", "bcd")]),
    "eviction": ([("put", "abc")], [("delete", "bc"), ("get", "a")]),
    "eviction and storing anew": ([("put", "ab")], [("delete", "b"), ("put", "b"), ("get", "ab")]),
    "promotion of a damaged page": ([("put", "abc"), ("damage", "c")], [("get", "abc"), ("put", "c"), ("get", "c")]),
    "a damaged page evicted": ([("put", "ab"), ("damage", "b")], [("delete", "b")]),
    "a life": ([], [("put", "ab"), ("get", "a"), ("delete", "b"), ("put", "bc"), ("get", "abc"), ("delete", "c")]),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_crash_point_leaves_misses_or_exact_bytes(name: str) -> None:
    before, actions = SCENARIOS[name]
    report = enumerate_crashes(before, actions)
    assert report.points == len(report.steps) + 1
    if any(action == "put" for action, _ in actions):
        assert report.stored
        assert report.not_stored


@pytest.mark.parametrize("actions", [[("put", "bc")], [("put", "bc"), ("delete", "b")]])
def test_every_combination_of_torn_files_leaves_misses_or_exact_bytes(actions: list[Action]) -> None:
    each_alike = enumerate_crashes([("put", "a")], actions)
    each_alone = enumerate_crashes([("put", "a")], actions, each_alone=True)
    assert each_alone.points == each_alike.points
    assert each_alone.states > each_alike.states


def left(io: CrashIO) -> set[tuple[tuple[str, bytes | None], ...]]:
    io.stop()
    io.abandon()
    return {tuple(sorted(state.files.items())) for state in io.remains()}


def files(*named: tuple[str, bytes]) -> tuple[tuple[str, bytes | None], ...]:
    return ((".", None), *sorted(named))


def write(io: CrashIO, name: str, data: bytes) -> int:
    fd = io.open(io.root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    io.write(fd, [data])
    return fd


def test_a_new_file_may_be_missing_empty_torn_or_zeros(tmp_path: Path) -> None:
    io = CrashIO(tmp_path)
    write(io, "new", b"x" * 5000)
    torn = {b"", b"x" * 4096, b"x" * 5000, bytes(5000), bytes(4096) + b"x" * 904, b"x" * 4096 + bytes(904)}
    assert left(io) == {files(), *(files(("new", data)) for data in torn)}


def test_fsync_of_a_file_keeps_its_bytes_and_not_its_name(tmp_path: Path) -> None:
    io = CrashIO(tmp_path)
    io.fsync(write(io, "new", b"x" * 5000))
    assert left(io) == {files(), files(("new", b"x" * 5000))}


def test_fsync_of_the_folder_keeps_the_name_and_not_the_bytes(tmp_path: Path) -> None:
    io = CrashIO(tmp_path)
    write(io, "new", b"x" * 100)
    io.fsync_dir(tmp_path)
    assert left(io) == {files(("new", data)) for data in (b"", b"x" * 100, bytes(100))}


def test_a_rename_is_atomic_and_may_not_have_happened(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"before")
    io = CrashIO(tmp_path)
    io.fsync(write(io, "tmp", b"after"))
    io.fsync_dir(tmp_path)
    io.rename(tmp_path / "tmp", tmp_path / "old")
    assert left(io) == {files(("old", b"before"), ("tmp", b"after")), files(("old", b"after"))}


def test_removals_happen_in_any_order(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"")
    io = CrashIO(tmp_path)
    for name in "ab":
        io.unlink(tmp_path / name)
    assert left(io) == {files(), files(("a", b"")), files(("b", b"")), files(("a", b""), ("b", b""))}


def test_after_the_crash_every_call_raises(tmp_path: Path) -> None:
    io = CrashIO(tmp_path, crash_at=1)
    io.listdir(tmp_path)
    for _ in range(2):
        with pytest.raises(CrashNow):
            io.listdir(tmp_path)
    assert io.steps == [f"listdir {tmp_path.name}"]
