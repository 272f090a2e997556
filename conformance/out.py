"""The folder that a command writes into."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gaugeblock.fixtures.errors import KitError


def prepare_out(out: str | Path | None, ours: Iterable[str] = ()) -> None:
    """Make the folder ``out`` before anything runs, so that no result is lost for want of it; None: there is none.

    ``ours`` are the files and folders that a run writes there: an old one must not be taken for this run's. Anything
    else in it is left alone.

    Raises:
        KitError: it cannot be made or written.
    """
    if out is None:
        return
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in ours):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise KitError(f"cannot write into {str(out)!r}: {error.strerror}; name another folder with --out") from error
