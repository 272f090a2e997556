"""Corners of the tiers below the device that the checks KV-020 to KV-028 pass by."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gaugeblock.fixtures.failing_io import FailingIO, QuietIO
from gaugeblock.fixtures.targets.inprocess_disk import scratch
from gaugeblock.fixtures.targets.inprocess_tiers import FORM, SIZE, TierBenches, data_of, key_of
from gaugeblock.reference.kv import disk_tier
from gaugeblock.reference.kv.build import build_offload
from gaugeblock.reference.kv.disk.errors import StoreBusy
from gaugeblock.reference.kv.disk.store import DiskStore
from gaugeblock.reference.kv.disk_tier import RETRY_SECONDS
from gaugeblock.reference.kv.pages import KVError
from gaugeblock.reference.kv.payload import Payload
from gaugeblock.reference.kv.workers import Workers


@pytest.fixture
def benches() -> Iterator[TierBenches]:
    """Makes tiers, and closes them."""
    with scratch() as folder:
        made = TierBenches(folder)
        yield made
        made.close()


def test_a_prefetched_page_is_not_pushed_out_by_what_it_replaces(
    benches: TierBenches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves the host for a page goes to the disk that the page is read from, and may not take its room there."""
    bench = benches(2, 1)
    bench.store("a")
    bench.run()
    with monkeypatch.context() as patch:
        patch.setattr(disk_tier, "MAX_QUEUED_BYTES", 0)  # nothing is written
        bench.store("c", "d")
    assert (bench.host(), bench.disk()) == ({"c", "d"}, {"a"})
    bench.prefetch(["a"])
    bench.run()
    assert bench.host() == {"a", "d"}


def test_a_disk_that_does_not_end_a_write_is_a_miss(benches: TierBenches) -> None:
    """A load that waits for a write in vain answers nothing, and the engine goes on."""
    bench = benches(0, 2)
    bench.store("a")
    bench.worker.stuck = True
    assert bench.load("a") == []
    bench.worker.stuck = False
    bench.now += RETRY_SECONDS
    assert bench.load("a") == ["a"]


def test_only_pages_without_a_copy_count_as_lost(benches: TierBenches) -> None:
    """A page that lies on a disk which stands aside is not lost; one that no tier has room for is, once."""
    io = FailingIO()
    bench = benches(1, 2, io=io)
    bench.store("a")
    bench.run()
    bench.store("b")
    bench.run()
    with io.failing("open", errno.EIO):
        assert bench.load("a") == []
    bench.store("c")  # b leaves the host; the disk has it
    assert bench.offload.lost == 0
    alone = benches(1, 0)
    alone.store("ab", "a")
    assert alone.offload.lost == 1
    assert alone.host() == {"a"}


CALLS = ("store ab", "store cd", "store ef", "prefetch ab", "prefetch ef", "load ab", "load cd", "write", "read")


@settings(max_examples=150, deadline=None)
@given(calls=st.lists(st.sampled_from(CALLS), max_size=25))
@example(calls=["store ab", "write", "store cd", "prefetch ab", "store ef", "write", "read"])
def test_reading_beside_the_worker_gives_exact_bytes(calls: list[str]) -> None:
    """With a reader of its own, in any order of its jobs and the worker's: a miss or the page's bytes, counts right."""
    with scratch() as folder, TierBenches(folder).one(2, 3, reads_apart=True) as bench:
        for call in calls:
            what, _, name = call.partition(" ")
            pages = [name[:1], name] if name else []
            if what == "store":
                bench.store(*reversed(pages))
            elif what == "prefetch":
                bench.prefetch(pages)
            elif what == "load":
                bench.load(*pages)
            else:
                bench.run(1, reads=what == "read")
        bench.run()
        bench.run(reads=True)
        for name in ("a", "ab", "c", "cd", "e", "ef"):
            here = name in bench.host() | bench.disk()
            assert bench.load(name) == [name] * here
        assert bench.disk() == bench.files()


def test_what_comes_behind_a_damaged_page_is_given_back(benches: TierBenches) -> None:
    """A chain is read at once; the pages behind one that does not come are not pinned for ever, and stay."""
    bench = benches(0, 4)
    bench.store("abcd", "abc", "ab", "a")
    bench.run()
    page = bench.offload.disk.store._path(bench.key("ab"))  # type: ignore[union-attr] # it has a disk
    page.write_bytes(page.read_bytes()[:-1])
    assert bench.load("a", "ab", "abc", "abcd") == ["a"]
    assert bench.offload.disk is not None
    assert bench.offload.disk.index.pinned() == 0
    assert bench.disk() == {"a", "abc", "abcd"}


def test_a_reader_that_is_stuck_is_waited_for_once(benches: TierBenches) -> None:
    """One page that does not come in time ends the load: not one wait for each page behind it."""
    bench = benches(0, 4)
    bench.store("abc", "ab", "a")
    bench.run()
    bench.worker.stuck = True
    assert bench.load("a", "ab", "abc") == []
    assert bench.offload.disk is not None
    assert (bench.offload.disk.failures, bench.offload.disk.index.pinned()) == (1, 0)


def test_prefetched_pages_of_a_reader_that_is_stuck_are_waited_for_once(benches: TierBenches) -> None:
    """However many pages are on their way, a load, a flush or a stop waits for one of them."""
    bench = benches(8, 8)
    bench.store("abc", "ab", "a")
    bench.run()
    bench.offload.host.clear()
    bench.prefetch(["a", "ab", "abc"])
    assert len(bench.worker.jobs) == 3
    bench.worker.stuck = True
    assert bench.load("a", "ab", "abc") == []
    assert bench.offload.disk is not None
    assert (bench.offload.disk.failures, bench.offload.disk.index.pinned(), bench.host()) == (1, 0, set())
    bench.worker.stuck = False
    bench.now += RETRY_SECONDS
    assert bench.load("a", "ab", "abc") == ["a", "ab", "abc"]


def test_a_flush_over_a_disk_that_does_not_end_a_write_forgets_nothing(benches: TierBenches) -> None:
    bench = benches(2, 2)
    bench.store("a")
    bench.worker.stuck = True
    with pytest.raises(KVError, match="did not end"):
        bench.offload.clear()
    assert bench.host() == {"a"}
    bench.worker.stuck = False
    bench.offload.clear()
    assert (bench.host(), bench.disk(), bench.files()) == (set(), set(), set())


class Hanging(QuietIO):
    """Reads wait until ``go`` is set; ``reading`` once one does."""

    def __init__(self) -> None:
        self.go, self.reading = threading.Event(), threading.Event()

    def read(self, fd: int, count: int) -> bytes:
        self.reading.set()
        assert self.go.wait(60)
        return super().read(fd, count)


def test_closing_over_a_read_that_hangs_ends_in_time_and_keeps_the_folder_locked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Until the process ends nobody else may have the folder: the read may still touch it."""
    monkeypatch.setattr(disk_tier.DiskTier._end_workers, "__defaults__", (0.2,))
    io = Hanging()
    worker, reader = Workers(1, "write"), Workers(2, "read")
    offload = build_offload(
        FORM, 0, disk=tmp_path, disk_bytes=4 * SIZE, identity="x", worker=worker, reader=reader, io=io
    )
    offload.store([Payload(key_of("a"), key_of(""), data_of("a"))])
    assert offload.disk is not None
    offload.disk.settle()
    future = offload.disk.begin_read(key_of("a"))
    assert future is not None
    assert io.reading.wait(30)
    with pytest.raises(KVError, match="its folder stays locked"):
        offload.close()
    with pytest.raises(StoreBusy):
        DiskStore(tmp_path, "x")
    io.go.set()
    assert future.result(30) == data_of("a").numpy().tobytes()
    reader.shutdown()
    offload.disk.store.close()


def test_workers_run_jobs_in_order_tell_what_failed_and_end() -> None:
    workers = Workers(1, "test")
    done: list[int] = []
    futures = [workers.submit(done.append, number) for number in range(20)]
    failing = workers.submit(int, "no number")
    assert all(thread.daemon for thread in workers._threads)
    with pytest.raises(ValueError, match="no number"):
        failing.result(30)
    workers.shutdown()
    workers.shutdown()
    assert done == list(range(20))
    assert all(future.done() for future in futures)
    assert not any(thread.is_alive() for thread in workers._threads)
    with pytest.raises(RuntimeError, match="shut down"):
        workers.submit(int)


HANGS = {
    "a job": "hang()",
    "an fsync": "io = FileIO(); io.fsync = lambda fd: hang(); io.fsync_all([0, 1])",
}


@pytest.mark.parametrize("call", HANGS.values(), ids=HANGS)
def test_a_process_ends_while_a_worker_hangs(call: str) -> None:
    """The interpreter joins the threads of a ThreadPoolExecutor; a dead disk would keep it from ending."""
    script = f"""
import threading
from gaugeblock.reference.kv.disk.io import FileIO
from gaugeblock.reference.kv.workers import Workers
begun = threading.Event()
def hang():
    begun.set()
    threading.Event().wait()
def call():
    {call}
Workers(1, "x").submit(call)
assert begun.wait(30)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
