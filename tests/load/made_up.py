"""Run files as genai-bench writes them, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = ("ttft", "tpot", "e2e_latency", "num_input_tokens", "num_output_tokens")
STATS = ("min", "max", "mean", "stddev", "p25", "p50", "p75", "p90", "p95", "p99")


def run_file(
    folder: Path, *, completed: int, codes: dict[str, int], missing: tuple[str, ...] = (), **values: float
) -> Path:
    """Write a run file in which every statistic of a metric has the same value; ``missing`` metrics have none."""
    errors = sum(codes.values())
    base = {"ttft": 0.1, "tpot": 0.005, "e2e_latency": 0.2, "num_input_tokens": 100.0, "num_output_tokens": 20.0}
    stats: dict[str, Any] = {
        name: dict.fromkeys(STATS, None if name in missing else {**base, **values}[name]) for name in NAMES
    }
    total = {
        "requests_per_second": values.get("rps", 12.0),
        "error_codes_frequency": codes,
        "error_rate": 0.0,  # so it says, whatever happened
        "num_error_requests": errors,
        "num_completed_requests": completed,
        "num_requests": completed + errors,
        "run_duration": 10.0,
        "mean_output_throughput_tokens_per_s": 240.0,
        "stats": stats,
    }
    single = [{"error_code": 500, "error_message": "out of memory"}] * errors + [{"error_message": None}] * completed
    folder.mkdir(parents=True, exist_ok=True)
    name = "debug_for_run_D100_20_4.json" if missing else "D100_20_text-to-text_num_concurrency_4_time_10s.json"
    path = folder / name
    path.write_text(json.dumps({"aggregated_metrics": total, "individual_request_metrics": single}))
    return path
