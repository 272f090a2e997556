"""A process that stores pages without end, ended by SIGKILL: what it reported is there when the folder is opened."""

from __future__ import annotations

import random
import select
import subprocess
import sys
from pathlib import Path

from gaugeblock.fixtures.targets.inprocess_disk import bytes_of, key_of
from gaugeblock.reference.kv.disk.store import DiskStore

KILLS = 8
SECONDS = 30.0
# Reports "+ n": batch n is stored; "? n": it is about to be deleted; "- n": it is deleted.
CHILD = """
import pathlib, sys
from gaugeblock.fixtures.targets.inprocess_disk import key_of, page_of
from gaugeblock.reference.kv.disk.store import DiskStore
store = DiskStore(pathlib.Path(sys.argv[1]), "killed")
for batch in range(int(sys.argv[2]), 10**6):
    store.put([page_of(f"{batch}.{i}") for i in range(4)])
    print("+", batch, flush=True)
    if batch % 3 == 2:
        print("?", batch - 1, flush=True)
        store.delete([key_of(f"{batch - 1}.{i}") for i in range(4)])
        print("-", batch - 1, flush=True)
"""


def run_and_kill(folder: Path, first: int, reports: int) -> list[tuple[str, int]]:
    """Start a child that stores from batch ``first`` on, kill it after some reports, and return all it has made."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder, str(first)], stdout=subprocess.PIPE, bufsize=0)
    assert child.stdout is not None
    lines = []
    try:
        for _ in range(reports):
            ready, _, _ = select.select([child.stdout], [], [], SECONDS)
            assert ready, f"no report within {SECONDS} s after {lines[-1:]}"
            lines.append(child.stdout.readline())
    finally:
        child.kill()
        rest, _ = child.communicate(timeout=SECONDS)  # nothing lies in a buffer of ours, which this would pass by
    whole = [line.decode().split() for line in [*lines, *rest.splitlines(keepends=True)] if line.endswith(b"\n")]
    return [(what, int(batch)) for what, batch in whole]


def test_killed_while_storing(tmp_path: Path) -> None:
    chance, first, kept = random.Random(5), 0, 0
    said: dict[int, str] = {}
    for _ in range(KILLS):
        reports = run_and_kill(tmp_path, first, chance.randint(1, 15))
        said.update((batch, what) for what, batch in reports)
        store = DiskStore(tmp_path, "killed")
        listed = {entry.key for entry in store.entries()}
        unsaid = max(said) + 1
        for batch in range(unsaid + 2):
            pages = [f"{batch}.{i}" for i in range(4)]
            there = [name for name in pages if store.get(key_of(name)) == bytes_of(name)]
            assert [name for name in pages if key_of(name) in listed] == there
            allowed = {"+": (4,), "-": (0,), "?": (0, 4)}.get(said.get(batch, "?"), ())
            assert len(there) in allowed, f"batch {batch} ({said.get(batch)}): {len(there)} of 4 pages"
            kept += len(there)
        assert store.damaged == 0
        names = {path.name for path in (tmp_path / "pages").iterdir()}
        assert names == {f"{key.hex()}.page" for key in listed}
        store.close()
        first = unsaid + 1  # the batch before it may be stored or not: nothing was said of it
    assert {"+", "-"} <= set(said.values())
    assert kept > 0
