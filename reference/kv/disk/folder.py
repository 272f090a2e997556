"""A store's folder: whose it is, and bringing files and index into agreement when it is opened.

``store.json`` (format, version, identity), ``lock``, ``index.sqlite`` and ``pages/``. ``store.json`` is on the disk
before anything else is made, so a folder that has other things and no ``store.json`` is none of ours.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from gaugeblock.reference.kv.disk import index as index_file
from gaugeblock.reference.kv.disk import lock as lock_file
from gaugeblock.reference.kv.disk.errors import StoreMismatch
from gaugeblock.reference.kv.disk.files import PAGE, TEMPORARY, peek, read_page
from gaugeblock.reference.kv.disk.index import Index, IndexBroken
from gaugeblock.reference.kv.disk.io import FileIO
from gaugeblock.reference.kv.disk.page import VERSION, PageDamaged, StoredPage, identity_digest

FORMAT = "gaugeblock-kv"
LABEL = "store.json"
PAGES = "pages"
LONGEST_LABEL = 1 << 16  # bytes


def claim(folder: Path, identity: str, io: FileIO) -> None:
    """Make an empty folder a store of ``identity``, or see that it is one.

    Raises:
        StoreMismatch: it is another version's or identity's, or something else; nothing was changed.
    """
    names = set(io.listdir(folder))
    wanted = {"format": FORMAT, "version": VERSION, "identity": identity}
    if LABEL in names:
        found = _label(folder / LABEL, io)
        if found != wanted:
            raise StoreMismatch(
                f"{folder} holds {_describe(found)}; this process has {_describe(wanted)}: model, page size or version "
                "differ. Nothing was deleted: give each its own folder, or remove this one if you no longer need it"
            )
        return
    foreign = sorted(names - {lock_file.NAME, LABEL + TEMPORARY})
    if foreign:
        raise StoreMismatch(
            f"{folder} has no {LABEL} but {', '.join(foreign[:3])}{', …' * (len(foreign) > 3)}, so it is no KV store; "
            f"this process has {_describe(wanted)}. Nothing was deleted: name an empty folder"
        )
    _write_label(folder, json.dumps(wanted, indent=1).encode(), io)


def _label(path: Path, io: FileIO) -> Any:
    fd = io.open(path, os.O_RDONLY)
    try:
        data = io.read(fd, LONGEST_LABEL)
    finally:
        io.close(fd)
    with suppress(ValueError):
        return json.loads(data)
    return data[:40]


def _describe(label: Any) -> str:
    if isinstance(label, dict) and label.get("format") == FORMAT:
        return f"KV pages of identity {label.get('identity')!r} in format version {label.get('version')}"
    return f"something else ({str(label)[:40]!r})"


def _write_label(folder: Path, data: bytes, io: FileIO) -> None:
    temporary = folder / (LABEL + TEMPORARY)
    fd = io.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        done = 0
        while done < len(data):
            done += io.write(fd, [memoryview(data)[done:]])
        io.fsync(fd)
    finally:
        io.close(fd)
    io.rename(temporary, folder / LABEL)
    io.fsync_dir(folder)


def open_index(folder: Path, identity: str, io: FileIO) -> tuple[Index, int]:
    """Open the index and make it agree with the page files; return it and how many files were damaged.

    Temporary files go. Page files that the index does not name go too: they were never reported as stored, or were
    deleted, and taking them in would bring evicted pages back. Entries without a file go. Only when there is no index,
    or it is broken, is it made again from the files that verify.
    """
    io.make_dir(folder / PAGES)
    try:
        return _open_index(folder, identity, io)
    except IndexBroken:
        _remove_index(folder, io)
        return _open_index(folder, identity, io)


def _open_index(folder: Path, identity: str, io: FileIO) -> tuple[Index, int]:
    index = Index(folder, io)
    try:
        io.fsync_dir(folder)  # the names of index and pages/
        return index, _agree(folder / PAGES, index, identity_digest(identity), io)
    except BaseException:
        index.close()
        raise


def _remove_index(folder: Path, io: FileIO) -> None:
    for name in io.listdir(folder):
        if name.startswith(index_file.NAME):
            io.unlink(folder / name)


def _agree(pages: Path, index: Index, digest: bytes, io: FileIO) -> int:
    names = set(io.listdir(pages))
    for name in [name for name in names if name.endswith(TEMPORARY)]:
        io.unlink(pages / name)
    files = {name for name in names if name.endswith(PAGE)}
    if not index.complete:
        return _adopt(pages, files, index, digest, io)
    entries = index.entries()
    for name in files - {page.key.hex() + PAGE for page in entries}:
        io.unlink(pages / name)
    lost = [page.key for page in entries if page.key.hex() + PAGE not in files]
    if lost:
        index.remove(lost)
    return 0


def _adopt(pages: Path, files: set[str], index: Index, digest: bytes, io: FileIO) -> int:
    """Enter every file that verifies, parents first; remove the others and return how many they were."""
    found: dict[bytes, StoredPage] = {}
    damaged = 0
    for name in sorted(files):
        try:
            page = peek(io, pages / name, digest)
            read_page(io, pages / name, digest, page)
            if page.key.hex() + PAGE != name:
                raise PageDamaged(f"{name} holds page {page.key.hex()}")
            found[page.key] = page
        except PageDamaged:
            io.unlink(pages / name)
            damaged += 1
    index.add(_parents_first(found), complete=True)
    return damaged


def _parents_first(pages: dict[bytes, StoredPage]) -> list[StoredPage]:
    placed: dict[bytes, StoredPage] = {}
    for key in pages:
        chain = []
        while key in pages and key not in placed and pages[key] not in chain:
            chain.append(pages[key])
            key = pages[key].parent
        placed.update((page.key, page) for page in reversed(chain))
    return list(placed.values())
