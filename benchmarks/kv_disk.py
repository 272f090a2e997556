"""The disk tier against the same machine's plain file: MiB/s of storing, and of loading from the disk and from memory.

``python benchmarks/kv_disk.py [--folder .] [--pages 64] [--batch 16,64] [--rounds 9]``

What it is compared with: the same bytes in one file, one ``write`` a page and one ``fsync`` at the end; and one
``readinto`` a page of that file into one buffer. Rounds take turns, so that a busy neighbour hits both. Ratios are of
one round, their median and quartiles over the rounds.

*Cold* reads: before each, ``posix_fadvise(DONTNEED)`` drops the files from the page cache (they are synchronised, so
all of it can go), and ``mincore`` counts what is left; a disk's own cache below that is the same for both. *Warm*: both
lie in the page cache, and ``mincore`` finds all of them there. New file names in every round, as a store has them.

On a machine with other work the disk tier loses more than the plain file: it waits for the disk once a page, and each
time for a core afterwards. So the load average is printed, and the last column compares the best rounds of both.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash
from rich.console import Console
from rich.table import Table

from gaugeblock.reference.kv.disk.store import DiskStore, PageData

MIB = 1 << 20
THREADS = 4
LIBC = ctypes.CDLL(None, use_errno=True)


def plain_write(file: Path, pages: Sequence[PageData]) -> None:
    """Write all pages into one new file and synchronise it."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for page in pages:
            if os.write(fd, page.data) != len(page.data):
                raise OSError(f"a short write to {file}")
        os.fsync(fd)
    finally:
        os.close(fd)


def plain_read(file: Path, count: int, buffer: memoryview) -> None:
    """Read ``count`` pages of one file, each into the same buffer."""
    with file.open("rb", buffering=0) as source:
        for _ in range(count):
            if source.readinto(buffer) != len(buffer):
                raise OSError(f"a short read of {file}")


def resident(files: Sequence[Path]) -> float:
    """Return the share of the files' pages that is in the page cache, by ``mincore``."""
    there = total = 0
    for file in files:
        with (
            file.open("rb") as source,
            mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as data,
        ):
            count = -(-len(data) // mmap.PAGESIZE)
            flags = (ctypes.c_ubyte * count)()
            start = ctypes.addressof(ctypes.c_char.from_buffer(data))
            if LIBC.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(data)), flags):
                raise OSError(ctypes.get_errno(), "mincore")
            there, total = there + sum(flag & 1 for flag in flags), total + count
    return there / total


def drop(files: Sequence[Path]) -> None:
    """Take the files out of the page cache."""
    for file in files:
        with file.open("rb") as source:
            os.fsync(source.fileno())
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(action: Callable[[], None]) -> float:
    """Return how long it takes, in seconds."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


class Buffers(threading.local):
    """A buffer for each thread."""

    def __init__(self, size: int) -> None:
        self.buffer = memoryview(bytearray(size))


def one_round(
    folder: Path, number: int, pages: Sequence[PageData], batch: int, threads: ThreadPoolExecutor
) -> dict[str, tuple[float, float]]:
    """Return seconds of the store and of the plain file, by what was done; they take turns in going first."""
    store = DiskStore(folder / f"store{number}", "benchmark")
    plain = folder / f"plain{number}"
    buffers = Buffers(len(pages[0].data))
    buffer = buffers.buffer

    def put() -> None:
        for start in range(0, len(pages), batch):
            store.put(pages[start : start + batch])

    def get() -> None:
        for page in pages:
            if store.get(page.key, buffer) is None:
                raise RuntimeError("a page that was stored is a miss")

    def get_many() -> None:
        list(threads.map(get_one, pages))

    def get_one(page: PageData) -> None:
        if store.get(page.key, buffers.buffer) is None:
            raise RuntimeError("a page that was stored is a miss")

    def both(ours: Callable[[], None], theirs: Callable[[], None]) -> tuple[float, float]:
        if number % 2:
            return timed(ours), timed(theirs)
        other = timed(theirs)
        return timed(ours), other

    result = {"store": both(put, lambda: plain_write(plain, pages))}
    files = [plain, *(folder / f"store{number}" / "pages").iterdir()]
    drop(files)
    left = resident(files)
    if left > 0.01:
        raise RuntimeError(f"{left:.1%} of the files stay in the page cache: these reads would not be cold")
    result["load, cold"] = both(get, lambda: plain_read(plain, len(pages), buffer))
    drop(files)
    result[f"load, cold, {THREADS} threads"] = both(get_many, lambda: plain_read(plain, len(pages), buffer))
    for file in files:
        file.read_bytes()
    if (left := resident(files)) < 0.99:
        raise RuntimeError(f"{left:.1%} of the files are in the page cache: these reads would not be warm")
    result["load, warm"] = both(get, lambda: plain_read(plain, len(pages), buffer))
    store.close()
    shutil.rmtree(folder / f"store{number}")
    plain.unlink()
    return result


def file_system(folder: Path) -> str:
    """Return the name of the file system and its device."""
    answer = subprocess.run(["df", "--output=fstype,source", folder], capture_output=True, text=True, check=True)
    return " on ".join(answer.stdout.splitlines()[1].split())


def main() -> None:
    """Measure and print one table a batch size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write; what is written goes again")
    parser.add_argument("--pages", type=int, default=64, help="pages of 1 MiB a round")
    parser.add_argument("--batch", default="16,64", help="pages a put")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    pages = [
        PageData(xxhash.xxh3_128(str(n).encode()).digest() * 2, bytes(32), os.urandom(MIB))
        for n in range(options.pages)
    ]
    console = Console(width=110)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        console.print(
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
            f"Linux {platform.release()}, {file_system(Path(name))}; "
            f"{options.pages} pages of 1 MiB, {options.rounds} rounds after one that is not counted"
        )
        for batch in map(int, options.batch.split(",")):
            with ThreadPoolExecutor(THREADS) as threads:
                rounds = [one_round(Path(name), n, pages, batch, threads) for n in range(options.rounds + 1)][1:]
            console.print(table_of(rounds, batch, options.pages))


def table_of(rounds: Sequence[dict[str, tuple[float, float]]], batch: int, pages: int) -> Table:
    """Return medians, with quartiles of the ratio."""
    table = Table(
        "", "disk tier MiB/s", "plain file MiB/s", "ratio", "quartiles", "best of each", title=f"batches of {batch}"
    )
    for what in rounds[0]:
        ours, plain = ([pages / one[what][side] for one in rounds] for side in (0, 1))
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        speeds = (f"{statistics.median(side):,.0f}" for side in (ours, plain))
        table.add_row(what, *speeds, f"{middle:.0%}", f"{low:.0%} … {high:.0%}", f"{max(ours) / max(plain):.0%}")
    return table


if __name__ == "__main__":
    main()
