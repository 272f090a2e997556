"""The folder or file that a command writes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gaugeblock.fixtures.errors import KitError

MARK = ".gaugeblock"
"""A file in each folder that the kit makes below the user's own: without it, a folder is somebody else's."""


def prepare_out(out: str | Path | None, ours: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Make the folder ``out`` before anything runs, so that no result is lost for want of it; None: there is none.

    ``ours`` are the files and ``folders`` the folders that a run writes there: an old one must not be taken for this
    run's. Anything else in it is left alone, and so is a folder of such a name that no run of the kit made.

    Raises:
        KitError: it cannot be made or written, or something of the user's stands where this run would write.
    """
    if out is None:
        return
    root = Path(out)
    files, below = [root / name for name in ours], [root / name for name in folders]
    try:
        root.mkdir(parents=True, exist_ok=True)
        _try_to_write(root)
        _refuse_strangers(files, below)
        for path in files:
            path.unlink(missing_ok=True)
        for path in below:
            _make_anew(path)
    except OSError as error:
        raise KitError(f"cannot write into {str(out)!r}: {error.strerror}; name another folder with --out") from error


def prepare_file(out: str | Path | None, *inputs: Path | None) -> None:
    """Try the file ``out`` before anything runs, so that no result is lost for want of it; None: there is none.

    An old one stays until the new one takes its place in one piece.

    Raises:
        KitError: it cannot be written, or it is one of ``inputs``.
    """
    if out is None:
        return
    path = Path(out)
    if any(path.resolve() == given.resolve() for given in inputs if given is not None):
        raise KitError(f"{str(out)!r} is read by this command: name another file with --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _try_to_write(path.parent)
    except OSError as error:
        raise KitError(f"cannot write {str(out)!r}: {error.strerror}; name another file with --out") from error
    if path.is_dir():
        raise KitError(f"cannot write {str(out)!r}: it is a folder; name a file with --out")


def _try_to_write(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass


def _refuse_strangers(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Refuse what would have to go and is not the kit's, before anything goes."""
    for path in files:
        if path.is_dir():
            raise KitError(f"{str(path)!r} is a folder, and a file of this run would go there: {_ANOTHER}")
    for path in folders:
        if (path.exists() or path.is_symlink()) and not _made_by_us(path):
            raise KitError(
                f"{str(path)!r} was not made by an earlier run of this command and is left alone: {_ANOTHER}"
            )


_ANOTHER = "name another folder with --out"


def _made_by_us(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    return (path / MARK).is_file() or not any(path.iterdir())


def _make_anew(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    path.mkdir()
    (path / MARK).write_text("Made by gaugeblock, which removes this folder at the next run with the same --out.\n")
