import hashlib
from pathlib import Path

from gaugeblock.reference.engine.loader import weights_digest


def test_the_digest_follows_the_file_and_reads_each_version_once(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    opened = []
    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args, **kwargs: opened.append(self) or plain(self, *args, **kwargs))

    path.write_bytes(b"first")
    assert [weights_digest(tmp_path) for _ in range(3)] == [hashlib.sha256(b"first").hexdigest()] * 3
    read = [one for one in opened if one == path]
    path.write_bytes(b"longer")  # within one tick of the clock the time alone may be the same
    assert weights_digest(tmp_path) == hashlib.sha256(b"longer").hexdigest()
    replacement = tmp_path / "new"
    replacement.write_bytes(b"yet it")
    replacement.replace(path)
    assert weights_digest(tmp_path) == hashlib.sha256(b"yet it").hexdigest()
    assert len(read) <= 2  # once to write it, once to read it
