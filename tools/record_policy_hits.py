"""Record libcachesim's hits on the generated traces: golden/policies/hits.json, which check KV-041 compares with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import libcachesim

from gaugeblock.fixtures.policy_hits import REQUESTS, SEED, SHARES, fingerprint, peer_hits, traces

KINDS = {
    "equal": ("lru", "gdsf", "arc", "s3fifo"),  # size: all ties
    "unequal": ("lru", "size", "gdsf", "s3fifo"),  # ARC: its paper knows one size, and implementations differ
}


def main() -> None:
    """Write the file."""
    made = traces()
    record = {
        "made_by": f"libcachesim {version('libcachesim')} from PyPI, default parameters, one get() an access",
        "command": "python tools/record_policy_hits.py",
        "date": datetime.now(UTC).date().isoformat(),
        "inputs": f"gaugeblock.fixtures.policy_hits.traces(): generate_trace({SEED}, {REQUESTS})",
        "traces": {kind: fingerprint(trace) for kind, trace in made.items()},
        "hits": {
            kind: {
                name: {
                    str(capacity): peer_hits(libcachesim, trace, name, capacity)
                    for capacity in (int(share * trace.unique_bytes) for share in SHARES)
                }
                for name in KINDS[kind]
            }
            for kind, trace in made.items()
        },
    }
    path = Path(__file__).parent.parent / "golden" / "policies" / "hits.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
