"""Profile a live engine through its own profiler: start it, send one request, stop it, read the trace if it is here.

SGLang: ``/start_profile`` takes ``output_dir``, ``activities``, ``record_shapes``, ``with_stack`` and ``profile_id``;
the scheduler writes ``<profile_id>-TP-<rank>.trace.json.gz`` into the folder, on its own machine, when
``/stop_profile`` comes (``sglang.srt.managers.io_struct.ProfileReq``, 0.5.15). vLLM has the two endpoints when it was
started with a profiler configured, and names the folder itself.
"""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from gaugeblock.conformance.profiling.ceilings import Ceilings, measure_ceilings
from gaugeblock.conformance.profiling.sending import send
from gaugeblock.conformance.profiling.study import Study, read_study
from gaugeblock.conformance.profiling.trace import Trace, read_trace
from gaugeblock.fixtures.errors import KitError, TargetFault
from gaugeblock.fixtures.targets.engine import EngineTarget
from gaugeblock.fixtures.targets.wire import Limits

STOPPING = Limits(total=180.0, idle=180.0)
"""An engine answers ``/stop_profile`` after it has written its trace: minutes for one with stacks."""
WRITTEN = 60.0  # seconds until the trace must be there, once the engine has answered
POLL = 0.1  # between two looks for it; a file system gives no event to wait for here
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def profile_engine(url: str, api_key: str | None, prompt: int, decode: int, out: Path) -> Study:
    """Profile one request of ``prompt`` and ``decode`` tokens and read the trace.

    Raises:
        EnvironmentFault: nothing answers there.
        KitError: the engine has no profiler, refused, or wrote its trace where it cannot be read; says what to do.
    """
    target = EngineTarget(url.rstrip("/"), api_key=api_key)
    folder = (out / "engine").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.rglob("*"))
    send(target, prompt, decode)  # warms up: compilation belongs into no profile
    _start(target, folder)
    try:
        send(target, prompt, decode, distinct=True)
    finally:
        _stop(target)
    files = _wait_for_trace(folder, before)
    if not files:
        raise KitError(
            f"{target.url} has stopped profiling, but no trace came into {folder} within {WRITTEN:g} s: the engine "
            "writes on another machine, in a container, or to a folder of its own. Copy the file here and read it with "
            "`gaugeblock profile --trace FILE`"
        )
    path = max(files, key=lambda file: file.stat().st_size)
    trace = read_trace(path)
    study = read_study(f"{target.dialect} at {target.url}", path, _ceilings(target.url, trace), trace)
    study.workload = {"prompt_tokens": prompt, "decode_tokens": decode}
    study.dtype = _dtype(target)
    if len(files) > 1:
        study.notes.append(
            f"the engine wrote {len(files)} traces, one a rank or stage; this is the largest, {path.name}"
        )
    if trace.loose and not any(call.kernels for call in trace.walk()):
        study.notes.append(
            "all kernels come from CUDA graphs, which hide the operators: start the engine with --disable-cuda-graph "
            "to see compositions"
        )
    study.notes.append("an engine's modules cannot be replaced from outside: nothing was re-measured")
    return study


def _dtype(target: EngineTarget) -> str:
    try:
        told = target.info.get("dtype")
    except TargetFault:  # no reason to lose the profile
        told = None
    return str(told or "the engine's dtype")


def _start(target: EngineTarget, folder: Path) -> None:
    body = {
        "output_dir": str(folder),
        "activities": ["CPU", "GPU"],
        "record_shapes": True,
        "with_stack": False,
    }
    reply = target.post("/start_profile", body, limits=STOPPING)
    if reply.status in (404, 405, 501):
        remedy = (
            "vLLM has it when started with a profiler: VLLM_TORCH_PROFILER_DIR=DIR, or --profiler-config in newer ones"
            if target.dialect == "vllm"
            else "SGLang has it; for other engines record a trace yourself and read it with --trace FILE"
        )
        raise KitError(f"{target.url} has no /start_profile ({reply.status}): {remedy}")
    if reply.status in (401, 403):
        raise KitError(
            f"{target.url} refused /start_profile ({reply.status}): it takes the admin key; put it into the variable "
            "that --api-key-env names"
        )
    if not reply.ok:
        raise KitError(f"{target.url} did not start to profile: {reply.shown}")


def _stop(target: EngineTarget) -> None:
    reply = target.post("/stop_profile", {}, limits=STOPPING)
    if not reply.ok:
        raise KitError(f"{target.url} did not stop profiling: {reply.shown}. It may still be recording")


def _wait_for_trace(folder: Path, before: set[Path]) -> list[Path]:
    """Return the new traces once all that are there are whole; empty when none came in time."""
    deadline = time.monotonic() + WRITTEN
    while time.monotonic() < deadline:
        found = [path for path in set(folder.rglob("*.json*")) - before if path.is_file()]
        if found and all(_whole(path) for path in found):
            return sorted(found)
        time.sleep(POLL)
    return []


def _whole(path: Path) -> bool:
    try:
        raw = path.read_bytes()
        json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except (OSError, EOFError, ValueError):
        return False
    return True


def _ceilings(url: str, trace: Trace) -> Ceilings | None:
    """Measure this machine when the engine runs on it and its device is the one that is here; else None."""
    import torch

    if (urlsplit(url).hostname or "") not in LOOPBACK:
        return None
    if not trace.on_device:
        return measure_ceilings("cpu", torch.float32)
    if torch.cuda.is_available() and trace.device == torch.cuda.get_device_name():
        return measure_ceilings("cuda", torch.bfloat16)
    return None
