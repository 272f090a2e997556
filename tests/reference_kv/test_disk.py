"""The disk store: what no conformance check looks at."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gaugeblock.fixtures.failing_io import FailingIO
from gaugeblock.fixtures.targets.inprocess_disk import DiskBench, bytes_of, key_of, page_of
from gaugeblock.reference.kv.disk.errors import StoreBusy, StoreMismatch, StoreUnwritable
from gaugeblock.reference.kv.disk.io import FileIO
from gaugeblock.reference.kv.disk.page import HEADER, PageDamaged, StoredPage, header_of, identity_digest, parse
from gaugeblock.reference.kv.disk.store import DiskStore, PageData


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[DiskBench]:
    bench = DiskBench(tmp_path)
    yield bench
    bench.close()


def test_the_real_calls_store_and_load_pages_of_any_size(bench: DiskBench) -> None:
    store = bench.open(FileIO())
    sizes = (0, 1, 4095, 4096, 4097, 3 * 4096, 1 << 20)
    store.put([PageData(key_of(str(size)), b"", bytes_of("any", size)) for size in sizes])
    for size in sizes:
        assert store.get(key_of(str(size))) == bytes_of("any", size)
        buffer = memoryview(bytearray(b"?" * (size + 5)))
        assert store.get(key_of(str(size)), buffer) == bytes_of("any", size)
        assert bytes(buffer[size:]) == b"?" * 5
    assert store.bytes_written == sum(sizes)
    assert store.bytes_read == 2 * sum(sizes)


def test_nobody_else_may_look_into_the_folder(bench: DiskBench, tmp_path: Path) -> None:
    bench.open(FileIO()).put([page_of("private")])
    made = [path for path in tmp_path.rglob("pages") if path.is_dir()]
    assert made
    assert [path.stat().st_mode & 0o077 for path in (*made, made[0].parent)] == [0, 0]


def test_pages_are_bytes_whatever_the_items_of_a_buffer_are(bench: DiskBench) -> None:
    store = bench.open()
    store.put([PageData(key_of("floats"), b"", memoryview(array("f", range(2000))))])
    room = array("f", bytes(8000))
    assert store.entries()[0].size == 8000
    assert store.get(key_of("floats"), memoryview(room)) == array("f", range(2000)).tobytes()
    assert room == array("f", range(2000))


def test_a_buffer_that_is_too_small_is_refused_and_the_page_stays(bench: DiskBench) -> None:
    store = bench.filled("a")
    with pytest.raises(ValueError, match="buffer of 10 bytes"):
        store.get(key_of("a"), memoryview(bytearray(10)))
    assert store.get(key_of("a")) == bytes_of("a")


@pytest.mark.parametrize("key", [b"", bytes(65)])
def test_a_key_that_no_header_holds_is_refused(bench: DiskBench, key: bytes) -> None:
    store = bench.open()
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        store.put([page_of("a"), PageData(key, b"", b"data")])
    assert store.entries() == []


def test_a_header_says_what_was_written() -> None:
    digest = identity_digest("one")
    page = StoredPage(b"key", b"parent", 4)
    header = header_of(page, digest, b"data")
    assert len(header) == HEADER
    assert parse(header, digest) == page
    with pytest.raises(PageDamaged, match="identity"):
        parse(header, identity_digest("another"))


def test_a_page_that_is_there_is_not_written_again_and_one_that_was_removed_is(bench: DiskBench) -> None:
    store = bench.filled("ab")
    written = store.bytes_written
    store.put([page_of("a"), page_of("b")])
    assert store.bytes_written == written
    bench.file("a").unlink()
    store.put([page_of("a"), page_of("b")])
    assert store.bytes_written == written + len(page_of("a").data)
    assert bench.found(store, "ab") == "ab"


def test_names_that_are_not_the_stores_are_left_alone(bench: DiskBench) -> None:
    bench.filled("a")
    bench.close()
    (bench.folder / "pages" / "README").write_text("mine")
    bench.open()
    assert (bench.folder / "pages" / "README").read_text() == "mine"


def test_another_process_is_refused_by_number(bench: DiskBench) -> None:
    bench.filled("a")
    program = (
        "import sys, pathlib; from gaugeblock.reference.kv.disk.store import DiskStore\n"
        "try: DiskStore(pathlib.Path(sys.argv[1]), sys.argv[2])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, bench.folder, bench.identity], capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.startswith(f"{StoreBusy.__name__} {bench.folder} is in use by process {os.getpid()}:")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnwritable, match="Permission denied"):
        DiskStore(tmp_path / "store", "identity")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreUnwritable, match="store cannot hold KV pages"):
        DiskStore(tmp_path / "store", "identity")
    assert (tmp_path / "store").read_text() == "a file"


def test_somebody_elses_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(StoreMismatch, match="name an empty folder"):
        DiskStore(tmp_path, "identity")
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_a_damaged_page_that_was_stored_anew_meanwhile_stays(bench: DiskBench) -> None:
    class Racing(FailingIO):
        race = None

        def read(self, fd: int, count: int) -> bytes:
            data = super().read(fd, count)
            if self.race:
                self.race()
            return data

    io = Racing()
    store = bench.filled("a", io)
    bench.file("a").write_bytes(bench.file("a").read_bytes()[:-1] + b"?")

    def anew() -> None:
        io.race = None
        store.delete([key_of("a")])
        store.put([page_of("a")])

    io.race = anew
    assert store.get(key_of("a")) is None
    assert store.damaged == 0
    assert store.get(key_of("a")) == bytes_of("a")


def test_threads_store_load_and_delete_side_by_side(bench: DiskBench) -> None:
    store = bench.open(FileIO())
    barrier, wrong = threading.Barrier(4), list[str]()

    def work(number: int) -> None:
        barrier.wait(timeout=30)
        names = [f"{number}.{i}" for i in range(12)]
        for i, name in enumerate(names):
            store.put([page_of(name), page_of("shared")])
            for other in [*names[: i + 1], "shared"]:
                data = store.get(key_of(other))
                gone = other not in (name, "shared") and names.index(other) % 3 == 0
                if data != (None if gone else bytes_of(other)):
                    wrong.append(other)
            if i % 3 == 0:
                store.delete([key_of(name)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert store.damaged == 0
    assert len(store.entries()) == 4 * 8 + 1


def test_a_folder_from_before_pages_had_owners_is_read_and_takes_them(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "x")
    store.put([page_of("old")])
    store.close()
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        connection.execute("ALTER TABLE pages DROP COLUMN owner")
        connection.commit()
    store = DiskStore(tmp_path, "x")
    store.put([replace(page_of("new"), owner="ann")])
    store.close()
    store = DiskStore(tmp_path, "x")
    assert [(page.key, page.owner) for page in store.entries()] == [(key_of("old"), ""), (key_of("new"), "ann")]
    assert store.get(key_of("new")) == bytes_of("new")
    store.close()
