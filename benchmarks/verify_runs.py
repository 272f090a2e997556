"""Run `gaugeblock verify` several times and report seconds, results and every check that did not pass.

    python benchmarks/verify_runs.py --runs 20                      # the embedded reference: false alarms
    python benchmarks/verify_runs.py --runs 1 -- --engine-url URL   # one live endpoint: how long a full check takes

Exit code 1 when the runs disagree or one is not conformant.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

NOT_ALARMING = ("passed", "unsupported")


def run_once(arguments: list[str]) -> tuple[dict, float]:
    """Return the verdict of one run and its wall time in seconds, start of servers included."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "verify", "--out", out, *arguments]
        begin = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        seconds = time.monotonic() - begin
        path = Path(out) / "verdict.json"
        if not path.is_file():
            raise SystemExit(f"no verdict, exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        return json.loads(path.read_text(encoding="utf-8")), seconds


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("verify", nargs="*", help="arguments for `gaugeblock verify`, after --")
    options = parser.parse_args()
    times, results, alarms = [], Counter(), Counter()
    for number in range(1, options.runs + 1):
        verdict, seconds = run_once(options.verify)
        odd = [c for c in verdict["checks"] if c["outcome"] not in NOT_ALARMING]
        times.append(seconds)
        results[verdict["result"]] += 1
        alarms.update(f"{c['id']} {c['outcome']}" for c in odd)
        print(f"run {number:2d}: {verdict['result']:14s} {seconds:6.1f} s", *(c["id"] for c in odd), flush=True)
        for check in odd:
            print(f"        {check['id']}: {check['message'].splitlines()[0] if check['message'] else ''}", flush=True)
    median = statistics.median(times)
    print(f"{options.runs} runs: median {median:.1f} s, {min(times):.1f} to {max(times):.1f} s; {dict(results)}")
    print(f"not passed: {dict(alarms) or 'nothing'}")
    return 0 if set(results) == {"conformant"} else 1


if __name__ == "__main__":
    sys.exit(main())
