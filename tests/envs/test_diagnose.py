"""A failed step's log becomes one line with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaugeblock.fixtures.envs.diagnose import summarise

# pip's last line blames the requirement when the index cannot be reached
NETWORK = "WARNING: Retrying after 'NewConnectionError'\nERROR: No matching distribution found for x"
CASES = {
    NETWORK: "PIP_INDEX_URL",
    "OSError: [Errno 28] No space left on device": "disk is full",
    "ssl.SSLError: CERTIFICATE_VERIFY_FAILED": "PIP_CERT",
    "ERROR: 401 Client Error: Unauthorized for url": "refuses us",
    "Collecting x\nERROR: No matching distribution found for x==9": "No matching distribution found for x==9",
    "some text\nanother line\n\n": "another line",
    "": "no output",
}


@pytest.mark.parametrize(("log", "expected"), CASES.items())
def test_the_cause_is_named(log: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(log)
    line = summarise(path)
    assert expected in line
    assert "\n" not in line


def test_a_missing_log_is_no_crash(tmp_path: Path) -> None:
    assert summarise(tmp_path / "none") == "no output"
